"""Alignment of two sequences as Triton kernels (optional: needs triton, and a GPU or its interpreter).

The problem is that of `mmpt.ops.alignment._torch`. One thread keeps one row of a matrix, all threads step
along its anti-diagonals together and hand scores to the next row without leaving the chip. Scores and flows
are float64, as those of long paths need; only the costs, the shares and the path are float32.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

NOWHERE = tl.constexpr(-float("inf"))


def solve(
    cost: Tensor,
    row_lengths: Tensor,
    col_lengths: Tensor,
    relaxed: bool,
    smoothing: float,
    want_path: bool,
    both: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """As `mmpt.ops.alignment._torch.solve`, for float32 costs of at most 256 rows (and columns, if both)."""
    value, path = _solve(cost, row_lengths, col_lengths, relaxed, smoothing, want_path)
    if both:
        other_value, other_path = _solve(cost.mT, col_lengths, row_lengths, relaxed, smoothing, want_path)
        value, path = value + other_value, path + other_path.mT if want_path else None
    return value, path


def _solve(cost, row_lengths, col_lengths, relaxed, smoothing, want_path) -> tuple[Tensor, Tensor | None]:
    count, rows, cols = cost.shape
    size = triton.next_power_of_2(rows)
    together = max(1, 32 // size)  # problems that share a warp
    diagonals = rows + cols + 2 * relaxed - 1
    value = torch.empty(count, dtype=cost.dtype, device=cost.device)
    shares = torch.empty(
        (count, diagonals, 3, size) if want_path else (1,), dtype=cost.dtype, device=cost.device
    )
    path = torch.zeros(cost.shape, dtype=cost.dtype, device=cost.device) if want_path else value
    grid = (triton.cdiv(count, together),)
    shape = {"TOGETHER": together, "ROWS": size, "RELAXED": relaxed, "num_warps": 1}
    # a number would reach the kernel as float32
    factor = torch.full((1,), -1.0 / (smoothing or 1.0), dtype=torch.float64, device=cost.device)
    lengths = row_lengths.contiguous(), col_lengths.contiguous()
    _scores[grid](
        cost, *lengths, value, shares, count, rows, cols, *cost.stride(), diagonals, factor,
        HARD=smoothing == 0, SHARES=want_path, **shape,
    )  # fmt: skip
    if not want_path:
        return value, None
    _flows[grid](shares, *lengths, path, count, rows, cols, diagonals, **shape)
    return value, path


@triton.jit
def _place(
    row_lengths, col_lengths, count, TOGETHER: tl.constexpr, ROWS: tl.constexpr, RELAXED: tl.constexpr
):
    """Numbers of the problems (TOGETHER, 1), their last row and last column; rows (1, ROWS).

    OTAM is DTW of a matrix with one more column of zeros on either side.
    """
    problem = (tl.program_id(0) * TOGETHER + tl.arange(0, TOGETHER))[:, None].to(tl.int64)
    last_row = tl.load(row_lengths + problem, mask=problem < count, other=1) - 1
    last_col = tl.load(col_lengths + problem, mask=problem < count, other=1) - 1
    if RELAXED:
        last_col += 2
    return problem, last_row, last_col, tl.arange(0, ROWS)[None, :]


@triton.jit
def _scores(
    cost, row_lengths, col_lengths, value, shares, count, rows, cols, problem_step, row_step, col_step,
    diagonals, factor, TOGETHER: tl.constexpr, ROWS: tl.constexpr, RELAXED: tl.constexpr,
    HARD: tl.constexpr, SHARES: tl.constexpr,
):  # fmt: skip
    """Value of each problem, and which share of the paths into a cell comes from its diagonal, left and upper
    neighbour: (problem, diagonal, 3, row)."""
    problem, last_row, last_col, row = _place(row_lengths, col_lengths, count, TOGETHER, ROWS, RELAXED)
    above = tl.broadcast_to(tl.maximum(row - 1, 0), (TOGETHER, ROWS))
    before = tl.full((TOGETHER, ROWS), NOWHERE, tl.float64)  # scores of the diagonal before the last
    last = before
    end = before
    scale = tl.load(factor)
    for k in range(diagonals):
        col = k - row
        inside = (problem < count) & (row <= last_row) & (col >= 0) & (col <= last_col)
        real = inside
        at = col
        if RELAXED:
            real = inside & (col > 0) & (col < last_col)
            at = col - 1
        exact = tl.load(cost + problem * problem_step + row * row_step + at * col_step, mask=real, other=0.0)
        diagonal = tl.where(row > 0, tl.gather(before, above, 1), NOWHERE)
        up = tl.where(row > 0, tl.gather(last, above, 1), NOWHERE)
        if RELAXED:
            up = tl.where((col > 1) & (col != last_col), NOWHERE, up)
        left = tl.where(col > 0, last, NOWHERE)
        first = (row == 0) & (col == 0)
        best = tl.where(first, 0.0, tl.maximum(tl.maximum(diagonal, left), up))
        if HARD:
            entry = best
            from_diagonal = tl.where(diagonal == best, 1.0, 0.0)
            from_left = tl.where((left == best) & (diagonal != best), 1.0, 0.0)
            from_up = tl.where((up == best) & (diagonal != best) & (left != best), 1.0, 0.0)
        else:
            top = tl.where(best == NOWHERE, 0.0, best)
            from_diagonal, from_left, from_up = tl.exp(diagonal - top), tl.exp(left - top), tl.exp(up - top)
            total = from_diagonal + from_left + from_up
            entry = tl.where(first, 0.0, top + tl.log(total))
            part = tl.where(total > 0, 1.0 / total, 0.0)
            from_diagonal, from_left, from_up = from_diagonal * part, from_left * part, from_up * part
        before = last
        last = tl.where(inside, entry + exact.to(tl.float64) * scale, NOWHERE)
        end = tl.where((row == last_row) & (col == last_col), last, end)
        if SHARES:
            out = shares + ((problem * diagonals + k) * 3) * ROWS + row
            here = tl.broadcast_to(problem < count, (TOGETHER, ROWS))
            tl.store(out, from_diagonal.to(tl.float32), mask=here)
            tl.store(out + ROWS, from_left.to(tl.float32), mask=here)
            tl.store(out + 2 * ROWS, from_up.to(tl.float32), mask=here)
    result = tl.max(end, 1)[:, None] / scale
    tl.store(value + problem, result.to(tl.float32), mask=problem < count)


@triton.jit
def _flows(
    shares, row_lengths, col_lengths, path, count, rows, cols, diagonals,
    TOGETHER: tl.constexpr, ROWS: tl.constexpr, RELAXED: tl.constexpr,
):  # fmt: skip
    """Probability that the path visits a cell: every cell hands its flow to its predecessors by share."""
    problem, last_row, last_col, row = _place(row_lengths, col_lengths, count, TOGETHER, ROWS, RELAXED)
    below = tl.broadcast_to(tl.minimum(row + 1, ROWS - 1), (TOGETHER, ROWS))
    to_diagonal = tl.zeros((TOGETHER, ROWS), tl.float64)  # what the diagonal after the next hands on
    next_diagonal = to_diagonal
    to_left = to_diagonal
    to_up = to_diagonal
    for back in range(diagonals):
        k = diagonals - 1 - back
        col = k - row
        inside = (problem < count) & (row <= last_row) & (col >= 0) & (col <= last_col)
        from_below = tl.gather(to_diagonal, below, 1) + tl.gather(to_up, below, 1)
        flow = to_left + tl.where(row < ROWS - 1, from_below, 0.0)
        flow += tl.where((row == last_row) & (col == last_col), 1.0, 0.0)
        share = shares + ((problem * diagonals + k) * 3) * ROWS + row
        to_diagonal = next_diagonal
        next_diagonal = flow * tl.load(share, mask=inside, other=0.0)
        to_left = flow * tl.load(share + ROWS, mask=inside, other=0.0)
        to_up = flow * tl.load(share + 2 * ROWS, mask=inside, other=0.0)
        at = col - 1 if RELAXED else col
        real = inside
        if RELAXED:
            real = inside & (col > 0) & (col < last_col)
        tl.store(path + (problem * rows + row) * cols + at, flow.to(tl.float32), mask=real)


def solve_drop(
    cost: Tensor, drop: Tensor, row_lengths: Tensor, col_lengths: Tensor, smoothing: float, want_path: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Drop-DTW, see `mmpt.ops.alignment.drop_dtw`.

    Args:
        cost: (N, R, C) float32, R below 128.
        drop: (N, C) float32, the price of dropping a column.
        row_lengths: (N,) int64.
        col_lengths: (N,) int64.
        smoothing: of the soft minimum; 0 takes the minimum, whose gradient ties share equally.
        want_path: also compute the gradients.

    Returns:
        value (N,), and its gradients with respect to cost and drop, None if not wanted.
    """
    count, rows, cols = cost.shape
    size = triton.next_power_of_2(rows + 1)
    together = max(1, 32 // size)
    factor = torch.full((1,), -1.0 / (smoothing or 1.0), dtype=torch.float64, device=cost.device)
    value = torch.empty(count, dtype=cost.dtype, device=cost.device)
    diagonals = rows + cols
    shares = torch.empty(
        (count, diagonals, 5, size) if want_path else (1,), dtype=cost.dtype, device=cost.device
    )
    lengths = row_lengths.contiguous(), col_lengths.contiguous()
    grid, shape = (triton.cdiv(count, together),), {"TOGETHER": together, "ROWS": size, "num_warps": 1}
    _drop_scores[grid](
        cost, drop.contiguous(), *lengths, value, shares, count, cols, *cost.stride(), diagonals, factor,
        HARD=smoothing == 0, SHARES=want_path, **shape,
    )  # fmt: skip
    if not want_path:
        return value, None, None
    path = torch.zeros(cost.shape, dtype=cost.dtype, device=cost.device)
    dropped = torch.zeros(count, rows + 1, cols, dtype=cost.dtype, device=cost.device)
    _drop_flows[grid](shares, *lengths, path, dropped, count, rows, cols, diagonals, **shape)
    return value, path, dropped.sum(1)


@triton.jit
def _join(a, b, c, HARD: tl.constexpr):
    """Soft or hard maximum of three scores, and the share of each."""
    best = tl.maximum(tl.maximum(a, b), c)
    top = tl.where(best == NOWHERE, 0.0, best)
    if HARD:
        a = tl.where(a == best, 1.0, 0.0).to(tl.float64)
        b = tl.where(b == best, 1.0, 0.0).to(tl.float64)
        c = tl.where(c == best, 1.0, 0.0).to(tl.float64)
    else:
        a, b, c = tl.exp(a - top), tl.exp(b - top), tl.exp(c - top)
    total = a + b + c
    part = tl.where(best == NOWHERE, 0.0, 1.0 / total)
    joined = best if HARD else tl.where(best == NOWHERE, best, top + tl.log(total))
    return joined, a * part, b * part, c * part


@triton.jit
def _drop_scores(
    cost, drop, row_lengths, col_lengths, value, shares, count, cols, problem_step, row_step, col_step,
    diagonals, factor, TOGETHER: tl.constexpr, ROWS: tl.constexpr, HARD: tl.constexpr, SHARES: tl.constexpr,
):  # fmt: skip
    """Row i of a program stands for the first i rows of a matrix, column j for its first j columns."""
    problem = (tl.program_id(0) * TOGETHER + tl.arange(0, TOGETHER))[:, None].to(tl.int64)
    n_rows = tl.load(row_lengths + problem, mask=problem < count, other=1)
    n_cols = tl.load(col_lengths + problem, mask=problem < count, other=1)
    row = tl.arange(0, ROWS)[None, :]
    above = tl.broadcast_to(tl.maximum(row - 1, 0), (TOGETHER, ROWS))
    nowhere = tl.full((TOGETHER, ROWS), NOWHERE, tl.float64)
    before = nowhere
    last = tl.where(row + tl.zeros((TOGETHER, ROWS), tl.int32) == 0, 0.0, nowhere)
    last_matched = nowhere
    end = nowhere
    scale = tl.load(factor)
    for k in range(1, diagonals + 1):
        col = k - row
        inside = (problem < count) & (row <= n_rows) & (col >= 1) & (col <= n_cols)
        real = inside & (row >= 1)
        at = problem * problem_step + (row - 1) * row_step + (col - 1) * col_step
        gain = tl.load(cost + at, mask=real, other=0.0).to(tl.float64) * scale
        price = tl.load(drop + problem * cols + col - 1, mask=inside, other=0.0).to(tl.float64) * scale
        diagonal = tl.where(row > 0, tl.gather(before, above, 1), NOWHERE)
        up = tl.where(row > 0, tl.gather(last_matched, above, 1), NOWHERE)
        entry, from_diagonal, from_left, from_up = _join(diagonal, last, up, HARD)
        matched = tl.where(real, entry + gain, NOWHERE)
        best, through, dropping, _ = _join(matched, last + price, nowhere, HARD)
        before = last
        last = tl.where(inside, best, NOWHERE)
        last_matched = matched
        end = tl.where((row == n_rows) & (col == n_cols), last, end)
        if SHARES:
            out = shares + ((problem * diagonals + k - 1) * 5) * ROWS + row
            here = tl.broadcast_to(problem < count, (TOGETHER, ROWS))
            tl.store(out, from_diagonal.to(tl.float32), mask=here)
            tl.store(out + ROWS, from_left.to(tl.float32), mask=here)
            tl.store(out + 2 * ROWS, from_up.to(tl.float32), mask=here)
            tl.store(out + 3 * ROWS, through.to(tl.float32), mask=here)
            tl.store(out + 4 * ROWS, dropping.to(tl.float32), mask=here)
    result = tl.max(end, 1)[:, None] / scale
    tl.store(value + problem, result.to(tl.float32), mask=problem < count)


@triton.jit
def _drop_flows(
    shares, row_lengths, col_lengths, path, dropped, count, rows, cols, diagonals,
    TOGETHER: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Probabilities that a cell is matched (N, R, C), and that its column is dropped after i rows
    (N, R + 1, C)."""
    problem = (tl.program_id(0) * TOGETHER + tl.arange(0, TOGETHER))[:, None].to(tl.int64)
    n_rows = tl.load(row_lengths + problem, mask=problem < count, other=1)
    n_cols = tl.load(col_lengths + problem, mask=problem < count, other=1)
    row = tl.arange(0, ROWS)[None, :]
    below = tl.broadcast_to(tl.minimum(row + 1, ROWS - 1), (TOGETHER, ROWS))
    to_diagonal = tl.zeros((TOGETHER, ROWS), tl.float64)
    next_diagonal = to_diagonal
    to_left = to_diagonal
    to_up = to_diagonal
    for back in range(diagonals):
        k = diagonals - back
        col = k - row
        inside = (problem < count) & (row <= n_rows) & (col >= 1) & (col <= n_cols)
        share = shares + ((problem * diagonals + k - 1) * 5) * ROWS + row
        flow = to_left + tl.where(row < ROWS - 1, tl.gather(to_diagonal, below, 1), 0.0)
        flow += tl.where((row == n_rows) & (col == n_cols), 1.0, 0.0)
        matched = flow * tl.load(share + 3 * ROWS, mask=inside, other=0.0)
        matched += tl.where(row < ROWS - 1, tl.gather(to_up, below, 1), 0.0)
        matched = tl.where(inside & (row >= 1), matched, 0.0)
        drops = flow * tl.load(share + 4 * ROWS, mask=inside, other=0.0)
        to_diagonal = next_diagonal
        next_diagonal = matched * tl.load(share, mask=inside, other=0.0)
        to_left = matched * tl.load(share + ROWS, mask=inside, other=0.0) + drops
        to_up = matched * tl.load(share + 2 * ROWS, mask=inside, other=0.0)
        at = (problem * rows + row - 1) * cols + col - 1
        tl.store(path + at, matched.to(tl.float32), mask=inside & (row >= 1))
        at = (problem * (rows + 1) + row) * cols + col - 1
        tl.store(dropped + at, drops.to(tl.float32), mask=inside)
