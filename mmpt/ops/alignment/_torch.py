"""One dynamic programme for DTW and OTAM, soft or hard, in plain torch: anti-diagonals in sequence, matrices
side by side.

Legend: N matrices, R rows, C columns. The problem: over monotone paths from cell (0, 0) to an end cell, with
moves down-right, right and (where `vertical` allows the column) down, take the minimum of the summed costs,
or the soft minimum `-t log sum exp(-cost / t)`. OTAM is this problem on a matrix with one more column of
zeros on either side, with vertical moves in its first two columns and its last.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor

CPU_CELLS = (
    1 << 18
)  # cells worked on at once on a CPU: the tables of one chunk stay in cache, each call has enough to do


def solve(
    cost: Tensor,
    row_lengths: Tensor,
    col_lengths: Tensor,
    relaxed: bool,
    smoothing: float,
    want_path: bool,
    both: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Path cost and expected path of N matrices.

    Args:
        cost: (N, R, C), finite or +inf; anything beyond the lengths.
        row_lengths: (N,) int64, rows in use.
        col_lengths: (N,) int64, columns in use.
        relaxed: OTAM instead of DTW.
        smoothing: of the soft minimum, in units of cost; 0 takes the minimum (ties: diagonal, then left, then
            up).
        want_path: also compute the path.
        both: add value and path of the transposed matrices.

    Returns:
        value (N,), and path (N, R, C) = d value / d cost: the probability (hard: 0 or 1) that the path visits
        a cell. None if not wanted.
    """
    if both:
        value, path = solve(cost, row_lengths, col_lengths, relaxed, smoothing, want_path)
        swapped_value, swapped = solve(cost.mT, col_lengths, row_lengths, relaxed, smoothing, want_path)
        return value + swapped_value, None if path is None or swapped is None else path + swapped.mT
    count, rows, cols = cost.shape
    chunk = max(1, CPU_CELLS // (rows * cols)) if cost.device.type == "cpu" else max(1, count)
    value = cost.new_empty(count)
    path = torch.empty_like(cost) if want_path else None
    for start in range(0, count, chunk):
        part = slice(start, start + chunk)
        costs = _exact(cost[part]) if smoothing else cost[part]
        lengths = row_lengths[part], col_lengths[part]
        cells = None if _full(costs, *lengths) else inside(costs, *lengths)
        costs = costs if cells is None else torch.where(cells, costs, 0.0)
        kind = _Products if smoothing and _in_range(costs, smoothing) else _Table
        table = kind(costs, cells, *lengths, relaxed, smoothing)
        value[part] = table.value()
        if path is not None:
            path[part] = table.path()
    return value, path


def _exact(cost: Tensor) -> Tensor:
    """Costs in float64 where the device has it: the scores of long paths are so large that float32 rounds
    away a share of 1e-5."""
    return cost if cost.device.type == "mps" else cost.double()


def _in_range(cost: Tensor, smoothing: float) -> bool:
    """Do products of exp(-cost / smoothing) along any path stay within float64? Asked where looking costs
    nothing."""
    if cost.device.type != "cpu" or cost.dtype != torch.float64:
        return False
    low, high = (x.item() for x in torch.aminmax(cost))
    of_cell = max(-low, high) / smoothing + math.log(3)  # ways into it
    return of_cell * sum(cost.shape[1:]) < 600


def _full(cost: Tensor, row_lengths: Tensor, col_lengths: Tensor) -> bool:
    """Is every cell in use? Asked where looking costs nothing."""
    rows, cols = cost.shape[1:]
    return cost.device.type == "cpu" and bool(row_lengths.min() == rows and col_lengths.min() == cols)


def inside(cost: Tensor, row_lengths: Tensor, col_lengths: Tensor) -> Tensor:
    """(N, R, C) bool: cells within the lengths."""
    row = torch.arange(cost.shape[1], device=cost.device)[:, None]
    col = torch.arange(cost.shape[2], device=cost.device)
    return (row < row_lengths[:, None, None]) & (col < col_lengths[:, None, None])


@functools.cache
def _diagonals(rows: int, cols: int) -> list[tuple[slice, slice, slice, slice]]:
    """Flat slices of the cells of each anti-diagonal, and of their diagonal, left and upper neighbours."""
    found = []
    for k in range(2, rows + cols + 1):
        first, last = max(1, k - cols) * cols + k, min(rows, k - 1) * cols + k
        backs = (0, cols + 2, 1, cols + 1)
        cells, diagonal, left, up = (slice(first - back, last - back + 1, cols) for back in backs)
        found.append((cells, diagonal, left, up))
    return found


class _Table:
    """Scores of all cells of a chunk.

    Tables are ((R + 1) * (C + 1), N) with a border above and to the left. In this flat form an anti-diagonal
    is the slice with step C, and the predecessors of cell p are p - C - 2 (diagonal), p - 1 (left) and p - C
    - 1 (up).
    """

    never, always = -torch.inf, 0.0  # what a way that is closed, or open, is scored

    def __init__(
        self,
        cost: Tensor,
        cells: Tensor | None,
        row_lengths: Tensor,
        col_lengths: Tensor,
        relaxed: bool,
        smoothing: float,
    ):
        self.inside, self.smoothing = cells, smoothing
        self.margin = 1 if relaxed else 0
        self.count, self.rows, self.cols = cost.shape
        self.cols += 2 * self.margin
        self.width = self.cols + 1
        last_col = col_lengths + 2 * self.margin - 1
        self.end: Any = -1  # of the table, where all cells are in use
        if cells is not None:
            own = torch.arange(self.count, device=cost.device)
            self.end = row_lengths * self.width + last_col + 1, own
        self.barrier = None
        if relaxed:
            column = torch.arange(self.cols, device=cost.device)[:, None]
            barred = (column > 1) & (column != last_col)
            self.barrier = cost.new_full((self.rows + 1, self.width, self.count), self.always)
            self.barrier[1:, 1:].masked_fill_(barred, self.never)
            self.barrier = self.barrier.flatten(0, 1)
        gain = cost.new_zeros(self.rows + 1, self.width, self.count)
        torch.div(cost.permute(1, 2, 0), -(smoothing or 1.0), out=self._cells(gain))
        self._fill(gain.flatten(0, 1))

    def _cells(self, table: Tensor) -> Tensor:
        """The cells of the matrices, (R, C, N), in a table (rows, columns, N)."""
        return table[1:, 1 + self.margin : self.width - self.margin]

    def _from_above(self, score: Tensor, up: slice, cells: slice) -> Tensor:
        return score[up] if self.barrier is None else score[up] + self.barrier[cells]

    def _fill(self, gain: Tensor) -> None:
        """Scores (-cost / smoothing of the best way to a cell), and the same before the cell's own cost."""
        join = torch.logaddexp if self.smoothing else torch.maximum
        self.score = score = torch.full_like(gain, self.never)
        self.entry = entry = torch.full_like(gain, self.never)
        score[0] = self.always
        for cells, diagonal, left, up in _diagonals(self.rows, self.cols):
            join(join(score[diagonal], score[left]), self._from_above(score, up, cells), out=entry[cells])
            torch.add(entry[cells], gain[cells], out=score[cells])

    def value(self) -> Tensor:
        return self.score[self.end] * -(self.smoothing or 1.0)

    def _move_shares(self) -> Tensor:
        """(3, cells, N): share of the paths into a cell that come from its diagonal, left and upper
        neighbour."""
        score, width = self.score, self.width
        above = self._from_above(score, slice(1, -width), slice(width + 1, None))
        moves = torch.stack([score[: -width - 1], score[width:-1], above])
        entry = self.entry[width + 1 :]
        if self.smoothing:
            # normalized by their own sum: scores of long float32 paths are rounded, shares must still add to
            # one
            shares = moves.sub_(entry.clamp_min(torch.finfo(entry.dtype).min)).exp_()
            return shares.div_(shares.sum(0).clamp_min_(torch.finfo(entry.dtype).tiny))
        best = moves.eq(entry)
        best[1] &= ~best[0]
        best[2] &= ~(best[0] | best[1])
        return best.to(entry.dtype)

    def path(self) -> Tensor:
        """d value / d cost, walking from the end cell back: every cell hands its flow to its predecessors by
        share."""
        shares = self._move_shares()
        flow = torch.zeros_like(self.score)
        flow[self.end] = 1.0
        for cells, diagonal, left, up in reversed(_diagonals(self.rows, self.cols)):
            for share, neighbour in zip(shares, (diagonal, left, up), strict=True):
                flow[neighbour].addcmul_(
                    share[diagonal], flow[cells]
                )  # shares start at the first inner cell, as `diagonal` does
        return self._of_cells(flow)

    def _of_cells(self, flow: Tensor) -> Tensor:
        """(cells, N) -> (N, R, C) of the cells in use: the column of zeros that follows a short matrix is
        none."""
        path = self._cells(flow.view(self.rows + 1, self.width, self.count)).permute(2, 0, 1)
        return path if self.inside is None else path.masked_fill(~self.inside, 0.0)


class _Products(_Table):
    """The soft minimum where exponentials of all paths are in range: their sums of products take a fraction
    of the time of sums of logarithms."""

    never, always = 0.0, 1.0

    def _fill(self, gain: Tensor) -> None:
        self.gain = gain.exp_()
        self.score = score = torch.zeros_like(gain)
        score[0] = self.always
        for cells, diagonal, left, up in _diagonals(self.rows, self.cols):
            into = score[diagonal] + score[left]
            into.add_(score[up] if self.barrier is None else score[up] * self.barrier[cells])
            torch.mul(into, gain[cells], out=score[cells])
        self.whole = score[self.end]

    def value(self) -> Tensor:
        return self.whole.log() * -self.smoothing

    def path(self) -> Tensor:
        """Share of the ways through a cell: those into it times those on to the end, over all."""
        onward = torch.zeros_like(self.score)
        onward[self.end] = 1.0
        for cells, diagonal, left, up in reversed(_diagonals(self.rows, self.cols)):
            through = onward[cells] * self.gain[cells]
            onward[diagonal].add_(through)
            onward[left].add_(through)
            onward[up].add_(through if self.barrier is None else through.mul_(self.barrier[cells]))
        return self._of_cells(onward.mul_(self.score).div_(self.whole))
