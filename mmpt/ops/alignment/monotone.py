"""Assignment of rows to columns in which no row goes back: every row takes one column, columns may be left
out."""

from __future__ import annotations

import torch
from torch import Tensor

from mmpt.ops.alignment.functions import Lengths, _flat_lengths
from mmpt.ops.precision import full_precision


def monotone_assignment(scores: Tensor, lengths: Lengths | None = None) -> Tensor:
    """Largest sum of scores[i, c_i] over columns c_1 <= c_2 <= ... <= c_R.

    best[i, j] = scores[i, j] + max_{k <= j} best[i-1, k], the value is max_j best[R, j]. A constant added to
    all scores adds R times itself to every value: it moves no assignment.

    Args:
        scores: (..., R, C), high = close.
        lengths: rows and columns in use, as in `mmpt.ops.alignment.functions`.

    Returns:
        (...) in the dtype of scores; its gradient marks the cells of the assignment.
    """
    rows, columns = scores.shape[-2:]
    flat = full_precision(scores).reshape(-1, rows, columns)
    n_rows, n_columns = (_flat_lengths(scores, lengths, axis) for axis in (0, 1))
    outside = torch.arange(columns, device=flat.device) >= n_columns[:, None]  # (N, C)
    total = torch.zeros_like(flat[:, 0])
    for row in range(rows):
        through = torch.where(outside, -torch.inf, flat[:, row]) + total.cummax(-1).values
        total = torch.where((row < n_rows)[:, None], through, total)
    return total.amax(-1).reshape(scores.shape[:-2]).to(scores.dtype)
