"""Full-video retrieval: all captions of a video, in order, look for the video.

Per paragraph and video one score, by four measures: Cap. Avg. (no prefix; each caption's best clip,
averaged), `DTW` and `OTAM` (alignment in order), `OT` (transport). `historic-DTW` and `historic-OTAM` repeat
the released evaluations with their defects (see `compat`); `cosine-` measures use cosines of mean-centred
embeddings instead of raw dot products, because alignment costs change with a shift or scale of the scores
that no loss term controls.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from mmpt.config.fields import Section, option
from mmpt.evaluators.ranking import ScoreMatrix
from mmpt.historic.alignment_costs import historic_dtw, historic_otam
from mmpt.ops.alignment import dtw, dtw_path, hard_otam, otam_path
from mmpt.ops.sinkhorn import log_sinkhorn
from mmpt.registry import PREDICTORS

if TYPE_CHECKING:
    pass
from pathlib import Path

from mmpt.evaluators.metric import CLIP_SETTINGS, COMPAT_SETTINGS, WINDOW_SETTINGS, Metric, count_duplicates
from mmpt.evaluators.plots import plot_paths, plot_score_matrix
from mmpt.evaluators.predictor import Arrays, Predictor, video_name
from mmpt.evaluators.ranking import RankCounts, count_tile
from mmpt.evaluators.result import Result
from mmpt.registry import METRICS

_TILE_ELEMENTS = 2**22
_BINS = 8
_NO_MASS = -60.0  # e^-60 is nothing beside the logits 0..10 of real pairs, but no zero to divide by


@dataclass(frozen=True)
class Protocol:
    """Constants of one published evaluation. A cost is `offset - score`; alignment costs depend on the
    offset, so it is stated.

    Attributes:
        dtw_offset: offset of the time-warping cost.
        otam_offset: offset of the ordered-alignment cost.
        otam_scale: `area`: multiply a block by largest area / own area, as for time warping; `longest`: by
            longest side / own longest side.
        keep: keep only int(keep x captions) clips, those whose lowest cost is smallest, in temporal order;
            None keeps all.
    """

    dtw_offset: float = 0.0
    otam_offset: float = 0.0
    otam_scale: str = "area"
    keep: float | None = None


PROTOCOLS = {
    ("norton", "removed"): Protocol(),
    ("norton", "kept"): Protocol(dtw_offset=3.0, otam_scale="longest", keep=1.3),
    ("tempclr", "removed"): Protocol(dtw_offset=1.0, otam_offset=1.0),
    ("tempclr", "kept"): Protocol(dtw_offset=1.0, otam_offset=1.0, keep=1.3),
}


class Groups(NamedTuple):
    """Rows of a flat list that belong to each video: `index` (V, longest), zero where padded, and `lengths`
    (V)."""

    index: Tensor
    lengths: Tensor

    @classmethod
    def from_lists(cls, rows: Sequence[Sequence[int]]) -> Groups:
        lengths = torch.tensor([len(row) for row in rows])
        index = torch.zeros(len(rows), int(lengths.max()), dtype=torch.long)
        for video, row in enumerate(rows):
            index[video, : len(row)] = torch.as_tensor(row)
        return cls(index, lengths)

    @classmethod
    def from_lengths(cls, lengths: Sequence[int]) -> Groups:
        """Consecutive runs of rows."""
        starts = [0, *torch.as_tensor(lengths).cumsum(0).tolist()]
        return cls.from_lists([range(a, b) for a, b in zip(starts, starts[1:], strict=False)])


class Block(NamedTuple):
    """Scores of every pair of a tile, (Q, V, N, M), with real `rows` and `cols` (Q, V); padding holds
    zeros."""

    scores: Tensor
    rows: Tensor
    cols: Tensor

    def padding(self) -> tuple[Tensor, Tensor]:
        """True where a caption (Q, V, N, 1), or a clip (Q, V, 1, M), is padding."""
        height, width = self.scores.shape[-2:]
        return (
            (torch.arange(height) >= self.rows[..., None]).unsqueeze(-1),
            (torch.arange(width) >= self.cols[..., None]).unsqueeze(-2),
        )


def query_tiles(captions: Groups, clips: Groups) -> Iterator[Tensor]:
    """Paragraphs of similar length, as many as fit a tile with all videos."""
    n_videos, longest = clips.index.shape
    step = max(1, _TILE_ELEMENTS // (n_videos * longest * captions.index.shape[1]))
    return iter(captions.lengths.argsort(stable=True).split(step))


def video_bins(clips: Groups) -> list[Tensor]:
    """Videos of similar length together, so that little of a block is padding."""
    return list(clips.lengths.argsort(stable=True).tensor_split(min(_BINS, len(clips.lengths))))


def cut_block(rows: Tensor, captions: Groups, clips: Groups, queries: Tensor, videos: Tensor) -> Block:
    """Scores of some paragraphs against some videos, from the score rows of these paragraphs, (Q * N, all
    clips)."""
    width = int(clips.lengths[videos].max())
    block = (
        rows[:, clips.index[videos, :width].flatten()]
        .view(len(queries), -1, len(videos), width)
        .transpose(1, 2)
    )  # (Q, V, N, M)
    lengths = (
        captions.lengths[queries, None].expand(-1, len(videos)),
        clips.lengths[videos].expand(len(queries), -1),
    )
    block = Block(block, *lengths)
    no_caption, no_clip = block.padding()
    return block._replace(scores=block.scores.masked_fill(no_caption | no_clip, 0.0))


def keep_best(block: Block, keep: float) -> Block:
    """The int(keep x captions) clips of each pair that some caption scores highest, in temporal order; equal
    ones by time."""
    no_caption, no_clip = block.padding()
    best = (
        block.scores.masked_fill(no_caption, -torch.inf).amax(-2).masked_fill(no_clip.squeeze(-2), -torch.inf)
    )  # (Q, V, M)
    cols = torch.minimum((keep * block.rows.double()).long(), block.cols)
    place = best.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    kept_first = (place >= cols[..., None]).int().argsort(dim=-1, stable=True)[..., : int(cols.max())]
    picked = block.scores.gather(-1, kept_first[..., None, :].expand(*block.scores.shape[:-1], -1))
    block = Block(picked, block.rows, cols)
    return block._replace(scores=picked.masked_fill(block.padding()[1], 0.0))


def caption_average(block: Block) -> Tensor:
    """Mean over captions of the best clip's score, (Q, V)."""
    no_caption, no_clip = block.padding()
    best = block.scores.masked_fill(no_clip, -torch.inf).amax(-1)  # (Q, V, N)
    return best.masked_fill(no_caption.squeeze(-1), 0.0).sum(-1) / block.rows


def transport(block: Block, low: float, high: float, epsilon: float = 0.1, n_iters: int = 50) -> Tensor:
    """Norton's transport as a paragraph score: mean score of the pairs that the entropic plan couples, (Q,
    V)."""
    plan, scaled = transport_plan(block, low, high, epsilon, n_iters)
    return (plan * scaled).sum((-2, -1))


def transport_plan(
    block: Block, low: float, high: float, epsilon: float = 0.1, n_iters: int = 50
) -> tuple[Tensor, Tensor]:
    """Entropic plan of each pair, and the scaled scores that it couples, (Q, V, N, M) each.

    Scores are scaled to 0..1 over the whole matrix, as during training. Marginals are uniform and no prompt
    bucket is used: its value would have to be read from the right pairs, which a test must not look at.
    """
    scaled = (block.scores - low) / max(high - low, torch.finfo(block.scores.dtype).tiny)
    no_caption, no_clip = block.padding()
    log_mu = -block.rows[..., None].to(scaled.dtype).log().expand(*block.rows.shape, scaled.shape[-2])
    log_nu = -block.cols[..., None].to(scaled.dtype).log().expand(*block.cols.shape, scaled.shape[-1])
    log_mu = log_mu.masked_fill(no_caption.squeeze(-1), -torch.inf)
    log_nu = log_nu.masked_fill(no_clip.squeeze(-2), -torch.inf)
    logits = (scaled / epsilon).masked_fill(
        no_clip, _NO_MASS
    )  # the first step must not see padded clips, whose mass is still 1 there
    return log_sinkhorn(logits, log_mu, log_nu, n_iters=n_iters).exp(), scaled


def _costs(block: Block, protocol: Protocol, largest: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Scaled costs of time warping and of ordered alignment. Scaling makes short and long videos
    comparable."""
    area = largest[0] * largest[1] / (block.rows * block.cols).double()
    longest = max(largest) / torch.maximum(block.rows, block.cols).double()
    otam_scale = {"area": area, "longest": longest}[protocol.otam_scale]
    scores = block.scores.double()
    return (protocol.dtw_offset - scores) * area[..., None, None], (
        protocol.otam_offset - scores
    ) * otam_scale[..., None, None]


def paragraph_scores(
    scores: ScoreMatrix, captions: Groups, clips: Groups, protocol: Protocol, historic: bool = True
) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Score every paragraph against every video.

    Args:
        scores: captions x clips.
        captions: rows of each paragraph.
        clips: columns of each video.
        protocol: offsets, scales, selection of clips.
        historic: add the historic values of `DTW` and `OTAM`.

    Yields:
        (queries, {measure: (Q, V)}): some paragraphs, each once in all, and their scores, higher = better.
        Measures: `""` (Cap. Avg.), `DTW`, `OTAM`, `OT`, `historic-DTW`, `historic-OTAM`.
    """
    largest = captions.index.shape[1], clips.index.shape[1]
    extremes = _extremes(scores)
    bins = video_bins(clips)
    original_order = torch.cat(bins).argsort()
    for queries in query_tiles(captions, clips):
        height = int(captions.lengths[queries].max())
        rows = scores[captions.index[queries, :height].flatten()].cpu()
        parts = [
            _measure(cut_block(rows, captions, clips, queries, videos), protocol, largest, extremes, historic)
            for videos in bins
        ]
        yield (
            queries,
            {
                measure: torch.cat([part[measure] for part in parts], dim=1)[:, original_order]
                for measure in parts[0]
            },
        )


def _measure(
    block: Block, protocol: Protocol, largest: tuple[int, int], extremes: tuple[float, float], historic: bool
) -> dict[str, Tensor]:
    """All measures of a block, (Q, V) each."""
    found = {"": caption_average(block)}
    if protocol.keep is not None:
        block = keep_best(block, protocol.keep)
    dtw_cost, otam_cost = _costs(block, protocol, largest)
    lengths = block.rows, block.cols
    found["DTW"] = -dtw(dtw_cost, lengths)
    found["OTAM"] = -hard_otam(otam_cost, lengths, both=True)
    found["OT"] = transport(block, *extremes)
    if historic:
        found["historic-DTW"] = -historic_dtw(dtw_cost, lengths, largest)
        found["historic-OTAM"] = -historic_otam(otam_cost, lengths, largest)
    return found


def _extremes(scores: ScoreMatrix) -> tuple[float, float]:
    found = [tile.aminmax() for _, tile in scores.tiles()]
    return min(float(low) for low, _ in found), max(float(high) for _, high in found)


class PairAlignment(NamedTuple):
    """One paragraph against one video, for a picture: cost, cells of the DTW and of the OTAM path, and
    transport plan, (N, M) each."""

    cost: Tensor
    dtw: Tensor
    otam: Tensor
    plan: Tensor


def align_pair(
    scores: ScoreMatrix, captions: Groups, clips: Groups, query: int, video: int, protocol: Protocol
) -> PairAlignment:
    """The alignments behind the scores of one pair; OTAM in its first direction, captions in order."""
    rows = scores[captions.index[query, : captions.lengths[query]]].cpu()
    block = cut_block(rows, captions, clips, torch.tensor([query]), torch.tensor([video]))
    if protocol.keep is not None:
        block = keep_best(block, protocol.keep)
    dtw_cost, otam_cost = (
        cost[0, 0] for cost in _costs(block, protocol, (captions.index.shape[1], clips.index.shape[1]))
    )
    plan, _ = transport_plan(block, *_extremes(scores))
    return PairAlignment(
        protocol.dtw_offset - block.scores[0, 0], dtw_path(dtw_cost), otam_path(otam_cost), plan[0, 0]
    )


@PREDICTORS.register()
class BGRetrievalPredictor(Predictor):
    """Pooled vectors of the windows and captions of whole videos, one video per batch; `*_lengths` count them
    per video."""

    def predict(self, batch: Mapping[str, Any], model: nn.Module) -> Arrays:
        outputs = model(**batch)
        return {
            "pooled_text": outputs["pooled_text"].float(),  # (N, D)
            "pooled_video": outputs["pooled_video"].float(),  # (W, D)
            "text_lengths": [len(outputs["pooled_text"])],
            "video_lengths": [len(outputs["pooled_video"])],
            "video_ids": [video_name(video_id) for video_id in batch["video_id"]],
            "texts": self.texts(batch["caps"]),
        }


class Paragraphs(NamedTuple):
    """Captions x clips, the rows and columns of each video, and the names of the videos."""

    matrix: ScoreMatrix
    captions: Groups
    clips: Groups
    names: list[str]


class _ParagraphMetric(Metric):
    best_metric = "R1"

    @dataclass(frozen=True, kw_only=True)
    class Config(Section):
        """Whose offsets and scales."""

        protocol: str = option(
            "norton", "whose cost offsets and scales full-video alignment uses", one_of=("norton", "tempclr")
        )

    background: str

    @abstractmethod
    def read(self, **arrays) -> Paragraphs:
        """Scores and groups of a run."""

    def evaluate(self, texts=None, **arrays) -> Result:
        """Score a run: the arguments of `read`, and `texts` (captions) to count duplicates.

        `eval.compat` gives the plain names `DTW` and `OTAM` to the historic values.
        """
        matrix, captions, clips, names = self.read(**arrays)
        protocol = self.protocol
        counts = rank_paragraphs(matrix, captions, clips, protocol, historic=True)
        cosine = matrix.centred_cosine()
        if cosine is not None:
            of_cosine = rank_paragraphs(cosine, captions, clips, protocol, historic=False)
            counts |= {f"cosine-{measure}".rstrip("-"): count for measure, count in of_cosine.items()}
        if self.config.compat:
            for measure in ("DTW", "OTAM"):
                counts[f"exact-{measure}"], counts[measure] = (
                    counts[measure],
                    counts.pop(f"historic-{measure}"),
                )
        facts = {
            "queries": len(captions.lengths),
            "gallery": len(clips.lengths),
            "captions": matrix.shape[0],
            "clips": matrix.shape[1],
            "protocol": f"{self.config.protocol}, background {self.background}: {protocol}",
            "tie rule": self.tie_rule,
            "tied queries": int((counts[""].tied > 0).sum()),
        }
        if texts is not None:
            facts["duplicate captions"] = count_duplicates(texts)
        ranks = {
            measure: count.ranks("position" if "historic" in measure else self.tie_rule)
            for measure, count in counts.items()
        }
        return self.rank_result(ranks, len(clips.lengths), facts, ids=names)

    @property
    def protocol(self) -> Protocol:
        """Constants of the evaluation that `eval.protocol` names."""
        return PROTOCOLS[self.config.protocol, self.background]

    def plot(self, folder: Path, result: Result, **arrays) -> list[Path]:
        """Adds the captions x clips scores, and the alignments of the video with the longest paragraph."""
        matrix, captions, clips, names = self.read(**arrays)
        video = int(captions.lengths.argmax())
        cost, dtw, otam, plan = (
            part.numpy() for part in align_pair(matrix, captions, clips, video, video, self.protocol)
        )
        return [
            *super().plot(folder, result),
            plot_score_matrix(folder / "scores.png", matrix.thinned(), "captions and clips"),
            plot_paths(folder / "alignment.png", cost, {"DTW": dtw, "OTAM": otam}, plan, names[video]),
        ]


@METRICS.register()
class FullVideoRetrievalMetric(_ParagraphMetric):
    """Background removed: a video is the list of its annotated clips, and its paragraph their captions."""

    background = "removed"
    published_settings = CLIP_SETTINGS | COMPAT_SETTINGS
    published_list = "test videos"

    def read(self, video_ids, scores=None, pooled_text=None, pooled_video=None, **_) -> Paragraphs:
        """Scores and groups of a run.

        Args:
            video_ids: (clips) the video of each clip and caption, in any order.
            scores: (captions, clips); or None with the next two.
            pooled_text: (captions, D).
            pooled_video: (clips, D).
        """
        matrix = ScoreMatrix(scores, queries=pooled_text, gallery=pooled_video)
        if not matrix.shape[0] == matrix.shape[1] == len(video_ids):
            raise ValueError(
                f"{len(video_ids)} video ids for {matrix.shape[0]} captions and {matrix.shape[1]} clips; "
                "they must agree."
            )
        rows = rows_by_video(video_ids)
        groups = Groups.from_lists(list(rows.values()))
        return Paragraphs(matrix, groups, groups, list(rows))


@METRICS.register()
class FullVideoBGRetrievalMetric(_ParagraphMetric):
    """Background kept: a video is all its windows, annotated or not."""

    background = "kept"
    published_settings = {**WINDOW_SETTINGS, **COMPAT_SETTINGS, "dataset.sliding_window_size": (16,)}

    def read(
        self,
        text_lengths,
        video_lengths,
        scores=None,
        pooled_text=None,
        pooled_video=None,
        video_ids=None,
        **_,
    ) -> Paragraphs:
        """Scores and groups of a run.

        Args:
            text_lengths: (videos) captions of each video.
            video_lengths: (videos) windows of each video.
            scores: (captions, windows), video after video; or None with the next two.
            pooled_text: (captions, D).
            pooled_video: (windows, D).
            video_ids: (videos).
        """
        matrix = ScoreMatrix(scores, queries=pooled_text, gallery=pooled_video)
        for name, lengths, rows in (
            ("text_lengths", text_lengths, matrix.shape[0]),
            ("video_lengths", video_lengths, matrix.shape[1]),
        ):
            if len(lengths) != len(text_lengths) or min(lengths) < 1 or sum(lengths) != rows:
                raise ValueError(
                    f"{name}: {len(lengths)} videos with {sum(lengths)} rows in all, expected "
                    f"{len(text_lengths)} with {rows}, each >= 1."
                )
        names = list(map(str, range(len(text_lengths)) if video_ids is None else video_ids))
        return Paragraphs(
            matrix, Groups.from_lengths(text_lengths), Groups.from_lengths(video_lengths), names
        )


def rows_by_video(video_ids: Sequence) -> dict[str, list[int]]:
    """Video -> its rows, videos by first appearance."""
    rows: dict[str, list[int]] = {}
    for row, video in enumerate(video_ids):
        rows.setdefault(str(video), []).append(row)
    return rows


def rank_paragraphs(
    matrix: ScoreMatrix, captions: Groups, clips: Groups, protocol: Protocol, historic: bool
) -> dict[str, RankCounts]:
    """Counts per measure; paragraph i belongs to video i."""
    counts: dict[str, list[RankCounts]] = {}
    seen = []
    for queries, found in paragraph_scores(matrix, captions, clips, protocol, historic):
        seen.append(queries)
        for measure, tile in found.items():
            counts.setdefault(measure, []).append(count_tile(tile, queries))
    original_order = torch.cat(seen).argsort().numpy()
    return {
        measure: RankCounts(*(count[original_order] for count in RankCounts.join(parts)))
        for measure, parts in counts.items()
    }
