"""Paragraphs against videos: one score for each pair, by measures of how the captions fit the clips in order.

Five measures: Cap. Avg. (no prefix; each caption's best clip, averaged), `DTW` and `OTAM` (alignment in
order), `monotone` (each caption one clip, never going back), `OT` (transport). A constant added to all scores
changes none of them: costs are counted from the largest score of the whole test. `docs/alignment.md` tells
why.

Letters: V videos, Q query paragraphs in a tile, N longest paragraph (captions), M longest video (clips).
Pairs are batched by padding and carry their real lengths; a pair's score never depends on the padding.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mmpt.evaluators.ranking import RankCounts, ScoreMatrix, count_tile
from mmpt.ops.alignment import dtw, dtw_path, hard_otam, monotone_assignment, otam_path
from mmpt.ops.sinkhorn import log_sinkhorn

_TILE_ELEMENTS = 2**20
_BINS = 8
_EPSILON, _SINKHORN_STEPS = 0.1, 50  # of transport, as in training
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


def transport(block: Block, low: float, high: float) -> Tensor:
    """Norton's transport as a paragraph score: mean score of the pairs that the entropic plan couples, (Q,
    V)."""
    plan, scaled = transport_plan(block, low, high)
    return (plan * scaled).sum((-2, -1))


def transport_plan(block: Block, low: float, high: float) -> tuple[Tensor, Tensor]:
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
    logits = (scaled / _EPSILON).masked_fill(
        no_clip, _NO_MASS
    )  # the first step must not see padded clips, whose mass is still 1 there
    return log_sinkhorn(logits, log_mu, log_nu, n_iters=_SINKHORN_STEPS, method="numba").exp(), scaled


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


def ordered_measures(block: Block, spread: Spread) -> dict[str, Tensor]:
    """The cheap ones of `shift_free_measures`: `""` (Cap. Avg.), `DTW`, `OTAM`, (Q, V) each.

    With d = highest score of the test - score >= 0 of R captions and C clips: DTW is minus the cheapest path
    over d by max(R, C); OTAM the sum of its directions, each by the length that it walks through once.
    """
    rows, cols = block.rows, block.cols
    cost = spread.high - block.scores.double()
    return {
        "": caption_average(block),
        "DTW": -dtw(cost, (rows, cols)) / torch.maximum(rows, cols),
        "OTAM": -hard_otam(cost, (rows, cols)) / cols - hard_otam(cost.mT, (cols, rows)) / rows,
    }


def shift_free_measures(block: Block, spread: Spread, keep: float | None = None) -> dict[str, Tensor]:
    """Measures that a constant added to all scores does not change.

    Args:
        block: pairs of paragraphs and videos.
        spread: of the whole test.
        keep: clips per caption that transport looks at; None: all.

    Returns:
        `""` (Cap. Avg.), `DTW`, `OTAM`, `monotone`, `OT`, (Q, V) each.
    """
    kept = block if keep is None else keep_best(block, keep)
    return ordered_measures(block, spread) | {
        "monotone": monotone_assignment(block.scores.double(), (block.rows, block.cols)) / block.rows,
        "OT": transport(kept, spread.low, spread.high),
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


class Paragraphs(NamedTuple):
    """Captions x clips, the rows and columns of each video, and the names of the videos."""

    matrix: ScoreMatrix
    captions: Groups
    clips: Groups
    names: list[str]


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
