"""Compiled recurrences of the released evaluations for CPU tensors (optional: needs numba); the same bits as
the loops of `mmpt.historic.alignment_costs`."""

from __future__ import annotations

from numba import njit


@njit(nogil=True, cache=True, error_model="numpy")
def cumulate(d, total, ordered):
    """Fills all of `total` but its first row and column, cells first (A, B, N): time warping, or with
    `ordered` the recurrence of ordered alignment."""
    height, width, count = d.shape
    for i in range(1, height):
        for j in range(1, width):
            for n in range(count):
                before = min(total[i - 1, j - 1, n], total[i, j - 1, n])
                if not ordered or j in (1, width - 1):
                    before = min(before, total[i - 1, j, n])
                total[i, j, n] = d[i, j, n] - before if ordered and j == 1 else d[i, j, n] + before
