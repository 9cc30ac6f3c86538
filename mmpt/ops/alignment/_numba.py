"""Compiled soft alignment for CPU tensors (optional: needs numba). Same numbers as
`mmpt.ops.alignment._torch`, many times faster.

Legend: N matrices, R rows, C columns. A block of LANES matrices is solved side by side, lanes innermost, so
that the compiler turns every loop over lanes into vector instructions. The summed weight exp(-A / smoothing)
of the paths into a cell is held as `mantissa * 2 ** exponent`, two float64 of which the exponent is whole:
adding paths is then a shift and a sum, no cell takes a logarithm, nothing underflows whatever the cost gaps,
and float32 costs lose no digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from llvmlite import ir
from numba import njit
from numba.extending import intrinsic
from torch import Tensor

LANES = 64
CELLS_PER_THREAD = 1 << 17  # below this a second thread costs more than it saves
UNREACHED = -(2.0**61)  # exponent of a cell that no path enters
LIMIT = 2.0**46  # largest cost a cell may have, in powers of two; stands for infinity
LN2 = math.log(2.0)
EXP_SERIES = tuple(LN2**k / math.factorial(k) for k in range(13))  # 2**r for |r| <= 1/2, to 2e-16
COMPILED = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": {"contract"}}

REAL, BITS = ir.DoubleType(), ir.IntType(64)
DIGITS, BIAS = 52, 1023  # of a float64
WHOLE = 2.0**DIGITS  # added to a whole number below it, leaves that number in the low bits
WHOLE_BITS = 0x4330000000000000


@intrinsic
def _nearest(typing_context, x):
    """The whole number next to x."""

    def build(context, builder, signature, args):
        return builder.call(builder.module.declare_intrinsic("llvm.rint", [REAL]), args)

    return x(x), build


@intrinsic
def _power_of_two(typing_context, exponent):
    """2 ** exponent for a whole exponent <= 0; zero from -1023 on."""

    def build(context, builder, signature, args):
        least = REAL(-BIAS)
        raised = builder.select(builder.fcmp_ordered(">", args[0], least), args[0], least)
        bits = builder.bitcast(builder.fadd(raised, REAL(WHOLE + BIAS)), BITS)
        return builder.bitcast(builder.shl(bits, BITS(DIGITS)), REAL)

    return exponent(exponent), build


@intrinsic
def _exponent(typing_context, x):
    """floor(log2(x)) of a positive x, not subnormal."""

    def build(context, builder, signature, args):
        bits = builder.lshr(builder.bitcast(args[0], BITS), BITS(DIGITS))
        return builder.fsub(builder.bitcast(builder.or_(bits, BITS(WHOLE_BITS)), REAL), REAL(WHOLE + BIAS))

    return x(x), build


@intrinsic
def _mantissa(typing_context, x):
    """x / 2 ** floor(log2(x)) of a positive x, not subnormal."""

    def build(context, builder, signature, args):
        bits = builder.and_(builder.bitcast(args[0], BITS), BITS((1 << DIGITS) - 1))
        return builder.bitcast(builder.or_(bits, BITS(BIAS << DIGITS)), REAL)

    return x(x), build


@njit(inline="always")
def _exp2_fraction(r):
    """2 ** r for |r| <= 1/2."""
    total = EXP_SERIES[12]
    for k in range(11, -1, -1):
        total = total * r + EXP_SERIES[k]
    return total


@njit(**COMPILED)
def _load(cost, start, row_lengths, col_lengths, limit, tile, spoilt):
    """Costs of a block within +-limit, lanes innermost; zero beyond the lengths, where costs are not looked
    at.

    `spoilt` becomes NaN for matrices with a NaN, the tile holds none.
    """
    tile[:] = 0.0
    for lane in range(min(LANES, len(cost) - start)):
        for i in range(row_lengths[start + lane]):
            for j in range(col_lengths[start + lane]):
                tile[i, j, lane] = cost[start + lane, i, j]
    spoilt[:] = 0.0
    for i in range(tile.shape[0]):
        for j in range(tile.shape[1]):
            for lane in range(LANES):
                exact = tile[i, j, lane]
                spoilt[lane] = exact if exact != exact else spoilt[lane]
                tile[i, j, lane] = min(exact, limit) if exact > -limit else -limit


@njit(**COMPILED)
def _store(tile, start, row_lengths, col_lengths, spoilt, path):
    for lane in range(min(LANES, len(path) - start)):
        for i in range(row_lengths[start + lane]):
            for j in range(col_lengths[start + lane]):
                path[start + lane, i, j] = tile[i, j, lane] + spoilt[lane]


@njit(**COMPILED)
def _dtw(cost, row_lengths, col_lengths, scale, limit, exponents, mantissas, path, first, last):
    """Fills matrices first..last: the summed path weights in exponents and mantissas (1, N), and path (N, R,
    C) unless it is empty."""
    rows, cols = cost.shape[1:]
    want_path = len(path) > 0
    tile, spoilt = np.empty((rows, cols, LANES), cost.dtype), np.empty(LANES, cost.dtype)
    mantissa, exponent = (
        np.ones((2, cols + 1, LANES)),
        np.empty((2, cols + 1, LANES)),
    )  # of two rows, with a border on the left
    left_mantissa, left_exponent, right = (
        np.ones(LANES),
        np.empty(LANES),
        np.empty(LANES, cost.dtype),
    )  # of the neighbour just done
    share = np.zeros(
        (3, rows + 1, cols + 1, LANES), cost.dtype
    )  # of the ways into a cell; zero below and right of the matrix
    flow, end = np.zeros((2, cols + 1, LANES), cost.dtype), np.zeros((cols, LANES), cost.dtype)
    for start in range(first, last, LANES):
        lanes = min(LANES, last - start)
        _load(cost, start, row_lengths, col_lengths, limit, tile, spoilt)
        exponent[:] = UNREACHED
        exponent[1, 0] = 0.0
        for i in range(rows):
            above, here = (i + 1) % 2, i % 2
            left_exponent[:] = UNREACHED
            for j in range(cols):
                for lane in range(LANES):
                    power = tile[i, j, lane] * scale
                    whole = _nearest(power)
                    diagonal, left, up = (
                        exponent[above, j, lane],
                        left_exponent[lane],
                        exponent[above, j + 1, lane],
                    )
                    top = max(max(diagonal, left), up)
                    a = mantissa[above, j, lane] * _power_of_two(diagonal - top)
                    b = left_mantissa[lane] * _power_of_two(left - top)
                    c = mantissa[above, j + 1, lane] * _power_of_two(up - top)
                    part = 1.0 / (a + b + c)
                    share[0, i, j, lane] = a * part
                    share[1, i, j, lane] = b * part
                    share[2, i, j, lane] = c * part
                    total = (a + b + c) * _exp2_fraction(power - whole)
                    left_exponent[lane] = exponent[here, j + 1, lane] = top + whole + _exponent(total)
                    left_mantissa[lane] = mantissa[here, j + 1, lane] = _mantissa(total)
            for lane in range(lanes):
                if i == row_lengths[start + lane] - 1:
                    exponents[0, start + lane] = (
                        exponent[here, col_lengths[start + lane], lane] + spoilt[lane]
                    )
                    mantissas[0, start + lane] = mantissa[here, col_lengths[start + lane], lane]
            exponent[above, 0] = UNREACHED
        if want_path:
            flow[:] = 0.0
            for i in range(rows - 1, -1, -1):
                below, here = (i + 1) % 2, i % 2
                for lane in range(lanes):
                    end[col_lengths[start + lane] - 1, lane] = (
                        1.0 if i == row_lengths[start + lane] - 1 else 0.0
                    )
                right[:] = 0.0
                for j in range(cols - 1, -1, -1):
                    for lane in range(LANES):
                        right[lane] = flow[here, j, lane] = tile[i, j, lane] = (
                            end[j, lane]
                            + flow[below, j + 1, lane] * share[0, i + 1, j + 1, lane]
                            + right[lane] * share[1, i, j + 1, lane]
                            + flow[below, j, lane] * share[2, i + 1, j, lane]
                        )
            end[:] = 0.0
            _store(tile, start, row_lengths, col_lengths, spoilt, path)


@njit(**COMPILED)
def _otam(cost, row_lengths, col_lengths, scale, limit, exponents, mantissas, path, first, last):
    """As `_dtw`. A second row of exponents and mantissas asks for the transposed matrices, whose paths are
    added."""
    rows, cols = cost.shape[1:]
    both = len(exponents) == 2
    tile, spoilt = np.empty((rows, cols, LANES), cost.dtype), np.empty(LANES, cost.dtype)
    found = np.empty((rows if len(path) else 0, cols, LANES), cost.dtype)
    one_way = _otam_scratch(rows, cols, cost)
    other_way = _otam_scratch(cols, rows, cost) if both else one_way
    for start in range(first, last, LANES):
        block = slice(start, min(start + LANES, last))
        _load(cost, start, row_lengths, col_lengths, limit, tile, spoilt)
        found[:] = 0.0
        _otam_block(
            tile,
            row_lengths[block],
            col_lengths[block],
            False,
            scale,
            exponents[0, block],
            mantissas[0, block],
            found,
            one_way,
        )
        if both:
            _otam_block(
                tile,
                col_lengths[block],
                row_lengths[block],
                True,
                scale,
                exponents[1, block],
                mantissas[1, block],
                found,
                other_way,
            )
        for lane in range(len(row_lengths[block])):
            exponents[0, start + lane] += spoilt[lane]
        if len(path):
            _store(found, start, row_lengths, col_lengths, spoilt, path)


@njit(**COMPILED)
def _otam_scratch(rows, cols, cost):
    mantissa, exponent = np.ones((2, cols, LANES)), np.empty((2, cols, LANES))  # of two rows
    left_mantissa, left_exponent, right = (
        np.ones(LANES),
        np.empty(LANES),
        np.empty(LANES, cost.dtype),
    )  # of the neighbour just done
    end_mantissa, end_exponent = np.ones((rows, LANES)), np.zeros((rows, LANES))  # of the last column
    best, total_end = np.empty(LANES), np.empty(LANES)
    up_share = np.zeros((rows + 1, LANES), cost.dtype)  # of the way from above into column 0
    diagonal_share = np.zeros(
        (rows + 1, cols + 1, LANES), cost.dtype
    )  # of that into the other columns; the rest comes from the left
    flow, end = np.zeros((2, cols + 1, LANES), cost.dtype), np.zeros((cols, LANES), cost.dtype)
    cells = mantissa, exponent, left_mantissa, left_exponent, diagonal_share, up_share
    return cells, (end_mantissa, end_exponent, best, total_end), (right, flow, end)


@njit(**COMPILED)
def _otam_block(tile, row_lengths, col_lengths, swapped, scale, exponents, mantissas, found, scratch):
    """One direction of one block.

    Column 0 is entered from the free start (two ways, one in the first row) or from above, every other column
    from its left; the free end adds up the last column, all its rows but the last twice.
    """
    (mantissa, exponent, left_mantissa, left_exponent, diagonal_share, up_share), ends, flows = scratch
    end_mantissa, end_exponent, best, total_end = ends
    rows, cols, lanes = len(end_mantissa), mantissa.shape[1], len(row_lengths)
    exponent[1] = UNREACHED
    for i in range(rows):
        above, here = (i + 1) % 2, i % 2
        ways = 2.0 if i else 1.0
        row, col = (0, i) if swapped else (i, 0)
        for lane in range(LANES):
            power = tile[row, col, lane] * scale
            whole = _nearest(power)
            up = exponent[above, 0, lane]
            top = max(up, 0.0)
            a = mantissa[above, 0, lane] * _power_of_two(up - top)
            entered = a + ways * _power_of_two(-top)
            up_share[i, lane] = a / entered
            total = entered * _exp2_fraction(power - whole)
            left_exponent[lane] = exponent[here, 0, lane] = top + whole + _exponent(total)
            left_mantissa[lane] = mantissa[here, 0, lane] = _mantissa(total)
        for j in range(1, cols):
            row, col = (j, i) if swapped else (i, j)
            for lane in range(LANES):
                power = tile[row, col, lane] * scale
                whole = _nearest(power)
                diagonal, left = exponent[above, j - 1, lane], left_exponent[lane]
                top = max(diagonal, left)
                a = mantissa[above, j - 1, lane] * _power_of_two(diagonal - top)
                entered = a + left_mantissa[lane] * _power_of_two(left - top)
                diagonal_share[i, j, lane] = a / entered
                total = entered * _exp2_fraction(power - whole)
                left_exponent[lane] = exponent[here, j, lane] = top + whole + _exponent(total)
                left_mantissa[lane] = mantissa[here, j, lane] = _mantissa(total)
        for lane in range(lanes):
            j, last_row = col_lengths[lane] - 1, row_lengths[lane] - 1
            end_exponent[i, lane] = exponent[here, j, lane] if i <= last_row else UNREACHED
            end_mantissa[i, lane] = mantissa[here, j, lane] * (2.0 if i < last_row else 1.0)
    best[:] = end_exponent[0]
    for i in range(1, rows):
        for lane in range(LANES):
            best[lane] = max(best[lane], end_exponent[i, lane])
    total_end[:] = 0.0
    for i in range(rows):
        for lane in range(LANES):
            end_mantissa[i, lane] *= _power_of_two(end_exponent[i, lane] - best[lane])
            total_end[lane] += end_mantissa[i, lane]
    exponents[:], mantissas[:] = best[:lanes], total_end[:lanes]
    if len(found):
        _otam_flow(end_mantissa, total_end, col_lengths, swapped, diagonal_share, up_share, flows, found)


@njit(**COMPILED)
def _otam_flow(end_mantissa, total_end, col_lengths, swapped, diagonal_share, up_share, scratch, found):
    """Adds to `found` the probability that the path visits a cell."""
    right, flow, end = scratch
    one = found.dtype.type(1)
    flow[:] = 0.0
    for i in range(len(end_mantissa) - 1, -1, -1):
        below, here = (i + 1) % 2, i % 2
        for lane in range(len(col_lengths)):
            end[col_lengths[lane] - 1, lane] = end_mantissa[i, lane] / total_end[lane]
        right[:] = 0.0
        for j in range(len(end) - 1, -1, -1):
            for lane in range(LANES):
                right[lane] = flow[here, j, lane] = (
                    end[j, lane]
                    + flow[below, j + 1, lane] * diagonal_share[i + 1, j + 1, lane]
                    + right[lane] * (one - diagonal_share[i, j + 1, lane])
                )
        for lane in range(LANES):
            flow[here, 0, lane] += flow[below, 0, lane] * up_share[i + 1, lane]
        for j in range(len(end)):
            row, col = (j, i) if swapped else (i, j)
            for lane in range(LANES):
                found[row, col, lane] += flow[here, j, lane]
    end[:] = 0.0


def _in_threads(kernel: Callable, arguments: tuple, count: int, *cells: int) -> None:
    """Runs a kernel over `count` matrices of so many cells, in shares [first, last)."""
    threads = max(1, min(torch.get_num_threads(), count * math.prod(cells) // CELLS_PER_THREAD))
    size = -(-count // threads)
    shares = [(start, min(start + size, count)) for start in range(0, count, size)]
    if len(shares) == 1:
        kernel(*arguments, *shares[0])
        return
    with ThreadPoolExecutor(len(shares)) as pool:
        for job in [pool.submit(kernel, *arguments, *share) for share in shares]:
            job.result()


def solve(
    cost: Tensor,
    row_lengths: Tensor,
    col_lengths: Tensor,
    relaxed: bool,
    smoothing: float,
    want_path: bool,
    both: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """As `mmpt.ops.alignment._torch.solve`, for CPU tensors and smoothing > 0. Costs from about 5e13 *
    smoothing on count as infinite."""
    # contiguous: every other memory layout would be compiled anew
    costs, row_lengths, col_lengths = (
        x.detach().contiguous().numpy() for x in (cost, row_lengths, col_lengths)
    )
    count, kernel = len(costs), _otam if relaxed else _dtw
    exponents, mantissas = np.empty((1 + both, count)), np.empty((1 + both, count))
    path = np.zeros(costs.shape if want_path else (0, 0, 0), costs.dtype)
    scale = -1.0 / (smoothing * LN2)
    limit = costs.dtype.type(min(-LIMIT / scale, np.finfo(costs.dtype).max))
    arguments = costs, row_lengths, col_lengths, scale, limit, exponents, mantissas, path
    _in_threads(kernel, arguments, *costs.shape)
    value = exponents + np.log2(mantissas)
    value[value < -LIMIT / 2] = -np.inf
    return torch.from_numpy(value.sum(0) / scale).to(cost.dtype), torch.from_numpy(
        path
    ) if want_path else None


def solve_hard(
    cost: Tensor, row_lengths: Tensor, col_lengths: Tensor, relaxed: bool, both: bool = False
) -> Tensor:
    """Values (N,) of `mmpt.ops.alignment._torch.solve` for CPU tensors without smoothing, the same bits."""
    if both:
        return solve_hard(cost, row_lengths, col_lengths, relaxed) + solve_hard(
            cost.mT, col_lengths, row_lengths, relaxed
        )
    arrays = [x.detach().contiguous().numpy() for x in (cost, row_lengths, col_lengths)]
    values = np.empty(len(arrays[0]), arrays[0].dtype)
    _in_threads(_hard, (*arrays, relaxed, values), *arrays[0].shape)
    return torch.from_numpy(values)


@njit(**COMPILED)
def _hard(cost, row_lengths, col_lengths, relaxed, values, first, last):
    """One row of sums at a time; with `relaxed` a column of zeros lies on either side."""
    total = np.empty(cost.shape[2], cost.dtype)
    for n in range(first, last):
        rows, cols = row_lengths[n], col_lengths[n]
        best = total[0] = cost[n, 0, 0]
        for j in range(1, cols):
            total[j] = cost[n, 0, j] + total[j - 1]
        best = total[cols - 1]
        for i in range(1, rows):
            diagonal = total[0]
            if relaxed:  # from the zeros on the left, or from above
                total[0] = cost[n, i, 0] + min(total[0], cost.dtype.type(0))
            else:
                total[0] = cost[n, i, 0] + total[0]
            for j in range(1, cols):
                entry = min(diagonal, total[j - 1])
                diagonal = total[j]
                if not relaxed:
                    entry = min(entry, diagonal)
                total[j] = cost[n, i, j] + entry
            best = min(best, total[cols - 1])
        values[n] = best if relaxed else total[cols - 1]
