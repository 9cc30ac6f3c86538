"""Contrastive losses of some rows of the score matrix, in linear memory: one rank's share of a joined batch.

Shapes: N queries of this rank, M candidates of all ranks, D width, C candidate captions of a clip.

Rows of scores are computed a tile at a time and reduced; backward computes each tile again. What is kept is
one number a row, so that the memory is that of the vectors plus one tile, whatever the number of ranks.

Source: Cheng et al., "Breaking the Memory Barrier of Contrastive Loss via Tile-Based Strategy" (Inf-CL),
arXiv 2410.17243.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmpt.ops.precision import HALF, autocast_off, full_precision, multiplies_halves, wide_product

Excluded = Callable[[slice, slice], Tensor]  # rows and columns of a tile -> bool, true where not a candidate
TILE_ROWS = 1024
TILE_NUMBERS = {"cpu": 2**21, "cuda": 2**25}  # of one tile: 8 MB stay in cache, 128 MB fill a GPU


def row_logsumexp(
    queries: Tensor, candidates: Tensor, skip: Tensor | None = None, excluded: Excluded | None = None
) -> Tensor:
    """log sum_j exp(q_i . k_j) of every query, without the (N, M) matrix.

    Args:
        queries: (N, D).
        candidates: (M, D).
        skip: (N,) int64, a column that does not count in each row; None: all count.
        excluded: says for a tile of the matrix which pairs do not count; None: all count.

    Returns:
        (N,), -inf where nothing counts; float32 for half precision.
    """
    return row_statistics(queries, candidates, skip, excluded)[0]


def row_statistics(
    queries: Tensor, candidates: Tensor, skip: Tensor | None = None, excluded: Excluded | None = None
) -> tuple[Tensor, Tensor]:
    """As `row_logsumexp`, and the highest score of every query (N,), without gradient."""
    with autocast_off(queries):
        return _RowLogSumExp.apply(queries, candidates, skip, excluded)


def nce_of_rows(
    queries: Tensor, candidates: Tensor, first: int = 0, excluded: Excluded | None = None
) -> Tensor:
    """Cross entropy of each query against its own candidate, number `first` + its row: a scalar mean.

    The mean over ranks of this, each with its own rows, is `info_nce` of the joined batch.

    Args:
        queries: (N, D).
        candidates: (M, D), M >= first + N.
        first: candidate of the first query.
        excluded: pairs that are no negatives, rows numbered as their own candidates are, which always count.
    """
    own = full_precision(candidates[first : first + len(queries)])
    negatives = None if excluded is None else _but_own(excluded, first)
    return (row_logsumexp(queries, candidates, excluded=negatives) - (queries * own).sum(1)).mean()


def milnce_of_rows(
    video: Tensor,
    text: Tensor,
    all_video: Tensor,
    all_text: Tensor,
    first: int = 0,
    positives_twice: bool = False,
) -> Tensor:
    """MIL-NCE of this rank's clips among those of all ranks: a scalar mean.

    Args:
        video: (N, D).
        text: (N * C, D), the candidates of a clip together.
        all_video: (M, D).
        all_text: (M * C, D).
        first: number of the first clip among all.
        positives_twice: see `milnce`.
    """
    captions = full_precision(text).unflatten(0, (len(video), -1))  # (N, C, D)
    positive = (captions @ full_precision(video)[..., None])[..., 0].logsumexp(1)
    owner = torch.arange(len(video), device=video.device).repeat_interleave(captions.shape[1]) + first
    of_clips = row_logsumexp(text, all_video, skip=None if positives_twice else owner)
    of_clips = of_clips.unflatten(0, captions.shape[:2]).logsumexp(1)
    return (torch.logaddexp(row_logsumexp(video, all_text), of_clips) - positive).mean()


def _but_own(excluded: Excluded, first: int) -> Excluded:
    def tile(rows: slice, columns: slice) -> Tensor:
        own = slice(rows.start + first, rows.stop + first)
        found = excluded(own, columns)
        number, other = (torch.arange(x.start, x.stop, device=found.device) for x in (own, columns))
        return found & (number[:, None] != other)

    return tile


class _RowLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, queries, candidates, skip, excluded):
        factors = _factors(queries)
        lse = full_precision(queries[:0]).new_full((len(queries),), -torch.inf)
        most = lse.clone()
        height, width = _tile_shape(queries)
        for columns in _slices(len(candidates), width):
            part = candidates[columns].to(factors.dtype)
            for rows in _slices(len(queries), height):
                tile = _scores(factors[rows], part, skip, excluded, rows, columns)
                lse[rows] = torch.logaddexp(lse[rows], tile.logsumexp(1))
                most[rows] = torch.maximum(most[rows], tile.amax(1))
        ctx.save_for_backward(queries, candidates, skip, lse)
        ctx.mark_non_differentiable(most)
        ctx.excluded = excluded
        return lse, most

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, _):
        queries, candidates, skip, lse = ctx.saved_tensors
        lse, factors = lse.masked_fill(lse.isneginf(), 0.0), _factors(queries)
        grad_queries, grad_candidates = (
            torch.zeros_like(queries, dtype=lse.dtype),
            torch.empty_like(candidates),
        )
        # shares as half-precision factors: the largest becomes one, so that few are lost to underflow
        unit = grad.abs().amax().clamp_min(torch.finfo(grad.dtype).tiny) if factors.dtype in HALF else 1.0
        weight = grad / unit
        height, width = _tile_shape(queries)
        with autocast_off(grad):
            for columns in _slices(len(candidates), width):
                part = candidates[columns].to(factors.dtype)
                grad_part = torch.zeros_like(part, dtype=lse.dtype)
                for rows in _slices(len(queries), height):
                    share = _scores(factors[rows], part, skip, ctx.excluded, rows, columns)
                    share = share.sub_(lse[rows, None]).exp_().mul_(weight[rows, None]).to(factors.dtype)
                    grad_queries[rows] += wide_product(share, part.T)
                    grad_part += wide_product(share.T, factors[rows].T)
                grad_candidates[columns] = grad_part.mul_(unit)
        return grad_queries.mul_(unit).to(queries.dtype), grad_candidates, None, None


def _factors(queries: Tensor) -> Tensor:
    """Queries in the type in which they are multiplied."""
    return queries if multiplies_halves(queries.device) else full_precision(queries)


def _tile_shape(queries: Tensor) -> tuple[int, int]:
    height = max(1, min(len(queries), TILE_ROWS))
    return height, TILE_NUMBERS.get(queries.device.type, TILE_NUMBERS["cpu"]) // height


def _slices(count: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def _scores(
    queries: Tensor,
    candidates: Tensor,
    skip: Tensor | None,
    excluded: Excluded | None,
    rows: slice,
    columns: slice,
) -> Tensor:
    """Scores of a tile, whose vectors are given, -inf where a pair does not count."""
    scores = wide_product(queries, candidates)
    if skip is not None:
        column = torch.arange(columns.start, columns.stop, device=scores.device)
        scores.masked_fill_(skip[rows, None] == column, -torch.inf)
    if excluded is not None:
        scores.masked_fill_(excluded(rows, columns), -torch.inf)
    return scores
