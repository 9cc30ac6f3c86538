"""Historic behaviour of the released evaluations, reproduced so that published numbers can be checked.

Known to be wrong, and reached only where a metric reports `historic-` values (or `eval.compat: true` makes
them the headline):

- blocks are padded to one common size and the cost is read at the padded corner. The zero corner can be
  entered from the last row but one, so the last real cell may be skipped; a block that already has the full
  width loses its whole last row instead;
- a transposed block with more rows than the target is cropped, and then all its padded columns are free;
- the second column of ordered temporal alignment *subtracts* the minimum of its predecessors.

Letters: A, B padded rows and columns; a, b real ones; leading axes are batch.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.nn.functional import pad

from mmpt.ops.backend import choose


def _pad_corner(cost: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """Fill what lies outside the real block: zero in the bottom right corner, infinite elsewhere.

    The corner starts at the last *real* row and at the first padded column. Historically both are slices
    counted from the end, which wrap round when nothing is padded (columns: from 0 on) or when the block was
    cropped.
    """
    height, width = cost.shape[-2:]
    row = torch.arange(height).view(-1, 1)  # (A, 1)
    col = torch.arange(width)  # (B,)
    a, b = rows[..., None, None], cols[..., None, None]
    first_row = torch.where(a <= height, a - 1, a - 1 - height)
    first_col = torch.where(b < width, b, b - width)
    corner = (row >= first_row) & (col >= first_col)
    real = (row < a) & (col < b)
    return cost.masked_fill(~real, torch.inf).masked_fill(corner, 0.0)


def _resize(cost: Tensor, height: int, width: int) -> Tensor:
    """Pad with zeros, or crop, at the bottom and right to (..., height, width)."""
    return pad(cost, (0, width - cost.shape[-1], 0, height - cost.shape[-2]))


def dtw_pad(cost: Tensor, target: tuple[int, int], rows: Tensor, cols: Tensor) -> Tensor:
    """Blocks (..., A', B') with `rows` x `cols` real cells -> (..., A, B) as the historic time warping reads
    them."""
    return _pad_corner(_resize(cost, *target), rows, cols)


def otam_pad(cost: Tensor, target: tuple[int, int], rows: Tensor, cols: Tensor) -> Tensor:
    """As `dtw_pad`, with a zero column added before the first and after the last real column: (..., A, B +
    2)."""
    height, width = target
    cost = pad(_resize(cost, height, width), (1, 1))
    col = torch.arange(width + 2)
    cost = cost.masked_fill((col == 0) | (col > cols[..., None, None]), 0.0)
    return _pad_corner(cost, rows, cols + 2)


def dtw_eval_cum_dist(cost: Tensor) -> Tensor:
    """Cumulative time-warping cost (..., A, B): d + min(diagonal, left, up)."""
    total, d = _cells(cost)
    total[:, 0], total[0] = d[:, 0].cumsum(0), d[0].cumsum(0)
    return _cumulate(total, d, ordered=False).reshape(cost.shape)


def otam_eval_cum_dist(cost: Tensor) -> Tensor:
    """Cumulative ordered-alignment cost (..., A, B + 2) of a block with its zero columns, minus sign in
    column 1 included."""
    total, d = _cells(cost)
    total[:, 0], total[0] = 0.0, d[0].cumsum(0)
    return _cumulate(total, d, ordered=True).reshape(cost.shape)


def _cells(cost: Tensor) -> tuple[Tensor, Tensor]:
    """Cells first, batch innermost (A, B, N), so that every step of the recursion runs over contiguous
    memory."""
    d = cost.reshape(-1, *cost.shape[-2:]).permute(1, 2, 0).contiguous()
    return torch.empty_like(d), d


def _cumulate(total: Tensor, d: Tensor, ordered: bool) -> Tensor:
    """All cells (N, A, B), where the first row and column of `total` (A, B, N) are known."""
    if choose("auto", d, numba=None, torch=None) == "numba":
        from mmpt.historic._numba import cumulate

        cumulate(d.numpy(), total.numpy(), ordered)
        return total.permute(2, 0, 1)
    height, width = d.shape[:2]
    for i, j in itertools.product(range(1, height), range(1, width)):
        before = torch.minimum(total[i - 1, j - 1], total[i, j - 1])
        if not ordered or j in (1, width - 1):
            before = torch.minimum(before, total[i - 1, j])
        total[i, j] = d[i, j] - before if ordered and j == 1 else d[i, j] + before
    return total.permute(2, 0, 1)


def historic_dtw(cost: Tensor, lengths: tuple[Tensor, Tensor], target: tuple[int, int]) -> Tensor:
    """Historic time-warping cost of each padded block (..., A', B') -> (...)."""
    return dtw_eval_cum_dist(dtw_pad(cost.float(), target, *lengths))[..., -1, -1]


def historic_otam(cost: Tensor, lengths: tuple[Tensor, Tensor], target: tuple[int, int]) -> Tensor:
    """Historic ordered-alignment cost of each padded block, both directions summed -> (...)."""
    rows, cols = lengths
    forward = otam_eval_cum_dist(otam_pad(cost.float(), target, rows, cols))[..., -1, -1]
    backward = otam_eval_cum_dist(otam_pad(cost.float().transpose(-1, -2), target, cols, rows))[..., -1, -1]
    return forward + backward
