"""Full-video retrieval: all captions of a video, in order, look for the video.

Per paragraph and video one score, by five measures: Cap. Avg. (no prefix; each caption's best clip,
averaged), `DTW` and `OTAM` (alignment in order), `monotone` (each caption one clip, never going back), `OT`
(transport). A constant added to all scores changes none of them: costs are counted from the largest score of
the whole test. The published forms of DTW and OTAM do not have that property and stand in the report under
`eval.compat` alone; a shift curve shows for every model what a constant does to them. `docs/alignment.md`
tells why. `cosine-` measures use cosines of mean-centred embeddings instead of raw dot products.

Letters: V videos, Q query paragraphs in a tile, N longest paragraph (captions), M longest video (clips).
Pairs are batched by padding and carry their real lengths; a pair's score never depends on the padding.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from mmpt.config.fields import Section, option
from mmpt.evaluators.ranking import ScoreMatrix
from mmpt.historic.full_video import PROTOCOLS, Protocol, published_measures
from mmpt.ops.alignment import dtw, dtw_path, hard_otam, monotone_assignment, otam_path
from mmpt.ops.sinkhorn import log_sinkhorn
from mmpt.registry import PREDICTORS

if TYPE_CHECKING:
    pass
import itertools
from dataclasses import dataclass
from pathlib import Path

from mmpt.evaluators.metric import CLIP_SETTINGS, COMPAT_SETTINGS, WINDOW_SETTINGS, Metric, count_duplicates
from mmpt.evaluators.plots import plot_paths, plot_score_matrix, plot_shift_curve
from mmpt.evaluators.predictor import Arrays, Predictor, video_name
from mmpt.evaluators.ranking import RankCounts, count_tile
from mmpt.evaluators.result import Result
from mmpt.registry import METRICS

_TILE_ELEMENTS = 2**20
_BINS = 8
KEEP = 1.3  # clips per caption that transport looks at where the background is kept
SHIFTS = (-6, -3, -2, -1, 0, 1, 2, 3, 6)  # of the shift curve, in standard deviations of the scores
CURVE = "R1 of scores + c: "  # name of a fact that holds one line of the curve
_CURVE_PAIRS = 2**15  # paragraphs x videos behind a shift curve
_NO_MASS = -60.0  # e^-60 is nothing beside the logits 0..10 of real pairs, but no zero to divide by


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
        return cls.from_lists([range(a, b) for a, b in itertools.pairwise(starts)])


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


def query_tiles(captions: Groups, clips: Groups, queries: Tensor | None = None) -> Iterator[Tensor]:
    """Paragraphs (all, or these) of similar length, as many as fit a tile with all videos."""
    n_videos, longest = clips.index.shape
    step = max(1, _TILE_ELEMENTS // (n_videos * longest * captions.index.shape[1]))
    queries = torch.arange(len(captions.lengths)) if queries is None else queries
    return iter(queries[captions.lengths[queries].argsort(stable=True)].split(step))


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
    return log_sinkhorn(logits, log_mu, log_nu, n_iters=n_iters, method="numba").exp(), scaled


Measure = Callable[[Block], dict[str, Tensor]]  # a block -> its measures, (Q, V) each, high = close


class Spread(NamedTuple):
    """Of all scores of captions against clips."""

    low: float
    high: float
    sd: float

    @classmethod
    def of(cls, scores: ScoreMatrix) -> Spread:
        tiles = [
            (
                tile.min().item(),
                tile.max().item(),
                tile.double().sum().item(),
                tile.double().square().sum().item(),
            )
            for _, tile in scores.tiles()
        ]
        low, high, total, squares = zip(*tiles, strict=True)
        n = scores.shape[0] * scores.shape[1]
        variance = sum(squares) / n - (sum(total) / n) ** 2
        return cls(min(low), max(high), max(variance, 0.0) ** 0.5)


def shift_free_measures(block: Block, spread: Spread, keep: float | None = None) -> dict[str, Tensor]:
    """Measures that a constant added to all scores does not change.

    With d = highest score of the test - score >= 0 of R captions and C clips: DTW is minus the cheapest path
    over d by max(R, C); OTAM the sum of its directions, each by the length that it walks through once.

    Args:
        block: pairs of paragraphs and videos.
        spread: of the whole test.
        keep: clips per caption that transport looks at; None: all.

    Returns:
        `""` (Cap. Avg.), `DTW`, `OTAM`, `monotone`, `OT`, (Q, V) each.
    """
    rows, cols = block.rows, block.cols
    cost, scores = spread.high - block.scores.double(), block.scores.double()
    return {
        "": caption_average(block),
        "DTW": -dtw(cost, (rows, cols)) / torch.maximum(rows, cols),
        "OTAM": -hard_otam(cost, (rows, cols)) / cols - hard_otam(cost.mT, (cols, rows)) / rows,
        "monotone": monotone_assignment(scores, (rows, cols)) / rows,
        "OT": transport(block if keep is None else keep_best(block, keep), spread.low, spread.high),
    }


def paragraph_scores(
    scores: ScoreMatrix, captions: Groups, clips: Groups, measure: Measure, queries: Tensor | None = None
) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Score every paragraph against every video.

    Args:
        scores: captions x clips.
        captions: rows of each paragraph.
        clips: columns of each video.
        measure: what is computed of each block.
        queries: numbers of the paragraphs; None: all.

    Yields:
        (queries, {measure: (Q, V)}): some paragraphs, each once in all, and their scores, high = close.
    """
    bins = video_bins(clips)
    original_order = torch.cat(bins).argsort()
    for tile in query_tiles(captions, clips, queries):
        height = int(captions.lengths[tile].max())
        rows = scores[captions.index[tile, :height].flatten()].cpu()
        parts = [measure(cut_block(rows, captions, clips, tile, videos)) for videos in bins]
        yield (
            tile,
            {name: torch.cat([part[name] for part in parts], dim=1)[:, original_order] for name in parts[0]},
        )


class PairAlignment(NamedTuple):
    """One paragraph against one video, for a picture: cost, cells of the DTW and of the OTAM path, and
    transport plan, (N, M) each."""

    cost: Tensor
    dtw: Tensor
    otam: Tensor
    plan: Tensor


def align_pair(
    scores: ScoreMatrix, captions: Groups, clips: Groups, query: int, video: int, keep: float | None = None
) -> PairAlignment:
    """The alignments behind the scores of one pair; OTAM in its first direction, captions in order. With
    `keep`, all are shown on the clips that transport looks at."""
    rows = scores[captions.index[query, : captions.lengths[query]]].cpu()
    block = cut_block(rows, captions, clips, torch.tensor([query]), torch.tensor([video]))
    block = block if keep is None else keep_best(block, keep)
    spread = Spread.of(scores)
    cost = spread.high - block.scores[0, 0].double()
    plan, _ = transport_plan(block, spread.low, spread.high)
    return PairAlignment(cost, dtw_path(cost), otam_path(cost), plan[0, 0])


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

        `eval.compat` gives the plain names `DTW` and `OTAM` to the values of the released code, `exact-` to
        those of its formulas, and `shift-free-` to those that otherwise have the plain names.
        """
        run = self.read(**arrays)
        matrix, captions, clips, names = run
        spread = Spread.of(matrix)
        counts = rank_paragraphs(run, lambda block: shift_free_measures(block, spread, self.keep))
        curve = self.shift_curve(run, spread, counts)
        if (cosine := matrix.centred_cosine()) is not None:
            of_cosine, its_spread = run._replace(matrix=cosine), Spread.of(cosine)
            found = rank_paragraphs(
                of_cosine, lambda block: shift_free_measures(block, its_spread, self.keep)
            )
            counts |= {f"cosine-{measure}".rstrip("-"): count for measure, count in found.items()}
        if self.config.compat:
            counts |= rank_paragraphs(run, lambda block: self.published(block, run))
            for measure in ("DTW", "OTAM"):
                counts[f"shift-free-{measure}"] = counts[measure]
                counts[measure] = counts.pop(f"historic-{measure}")
        facts = {
            "queries": len(captions.lengths),
            "gallery": len(clips.lengths),
            "captions": matrix.shape[0],
            "clips": matrix.shape[1],
            "background": self.background,
            "tie rule": self.tie_rule,
            "tied queries": int((counts[""].tied > 0).sum()),
        }
        if self.config.compat:
            facts["protocol"] = f"{self.config.protocol}: {self.protocol}"
        if texts is not None:
            facts["duplicate captions"] = count_duplicates(texts)
        facts |= {f"{CURVE}{measure}": values for measure, values in curve.items()}
        ranks = {measure: self.ranks(count) for measure, count in counts.items()}
        return self.rank_result(ranks, len(clips.lengths), facts, ids=names)

    @property
    def protocol(self) -> Protocol:
        """Constants of the published evaluation that `eval.protocol` names."""
        return PROTOCOLS[self.config.protocol, self.background]

    @property
    def keep(self) -> float | None:
        return KEEP if self.background == "kept" else None

    def published(self, block: Block, run: Paragraphs, shift: float = 0.0) -> dict[str, Tensor]:
        """DTW and OTAM in their published forms, of scores plus a constant."""
        block = block if self.keep is None else keep_best(block, self.keep)
        largest = run.captions.index.shape[1], run.clips.index.shape[1]
        lengths = block.rows, block.cols
        return published_measures(block.scores + shift, lengths, largest, self.protocol, self.config.compat)

    def shift_curve(
        self, run: Paragraphs, spread: Spread, counts: Mapping[str, RankCounts]
    ) -> dict[str, dict[str, float]]:
        """Measure -> constant added to all scores, in their standard deviations -> R@1.

        Of evenly spread paragraphs, at most as many as keep it cheap, against all videos. The shift-free
        measures stand beside the published ones for comparison: their line is level by construction.

        Args:
            run: scores and groups.
            spread: of the scores.
            counts: of the shift-free measures, of all paragraphs.
        """
        n_queries, n_videos = len(run.captions.lengths), len(run.clips.lengths)
        n_asked = min(n_queries, max(1, _CURVE_PAIRS // n_videos))
        asked = torch.linspace(0, n_queries - 1, n_asked, dtype=torch.float64).round().long()

        def measure(block: Block) -> dict[str, Tensor]:
            shifted = {c: self.published(block, run, c * spread.sd) for c in SHIFTS}
            return {f"{name} {c}": scores for c in SHIFTS for name, scores in shifted[c].items()}

        moving = {
            name: float((self.ranks(count) <= 1).mean())
            for name, count in rank_paragraphs(run, measure, asked).items()
        }
        level = {
            name or "Cap. Avg.": float((self.ranks(count)[asked.numpy()] <= 1).mean())
            for name, count in counts.items()
        }
        names = [*level, *dict.fromkeys(name.split(" ")[0] for name in moving)]
        return {
            name: {f"c = {c:+} sd": moving.get(f"{name} {c}", level.get(name)) for c in SHIFTS}
            for name in names
        }

    def plot(self, folder: Path, result: Result, **arrays) -> list[Path]:
        """Adds the captions x clips scores, the alignments of the video with the longest paragraph, and the
        shift curve."""
        run = self.read(**arrays)
        matrix, captions, clips, names = run
        video = int(captions.lengths.argmax())
        cost, dtw, otam, plan = (
            part.numpy() for part in align_pair(matrix, captions, clips, video, video, self.keep)
        )
        curve = {
            name.removeprefix(CURVE): values
            for name, values in result.facts.items()
            if name.startswith(CURVE)
        }
        return [
            *super().plot(folder, result),
            plot_score_matrix(folder / "scores.png", matrix.thinned(), "captions and clips"),
            plot_paths(folder / "alignment.png", cost, {"DTW": dtw, "OTAM": otam}, plan, names[video]),
            plot_shift_curve(folder / "shift.png", SHIFTS, curve),
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
    run: Paragraphs, measure: Measure, queries: Tensor | None = None
) -> dict[str, RankCounts]:
    """Counts per measure, of all paragraphs or of these; paragraph i belongs to video i."""
    counts: dict[str, list[RankCounts]] = {}
    seen = []
    for tile, found in paragraph_scores(run.matrix, run.captions, run.clips, measure, queries):
        seen.append(tile)
        for name, scores in found.items():
            counts.setdefault(name, []).append(count_tile(scores, tile))
    original_order = torch.cat(seen).argsort().numpy()
    return {
        name: RankCounts(*(count[original_order] for count in RankCounts.join(parts)))
        for name, parts in counts.items()
    }
