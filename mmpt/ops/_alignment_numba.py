"""Compiled soft alignment for CPU tensors (optional: needs numba). Same numbers as `mmpt.ops._wavefront`, several times faster.

Legend: N matrices, R rows, C columns. A block of LANES matrices is solved side by side, lanes innermost, so that the compiler turns every
line below into vector instructions. A cell's weight exp(-A / smoothing) is held as `mantissa * 2 ** exponent` (float64, int64): adding
paths is then a shift and a sum, no cell takes a logarithm, nothing underflows whatever the cost gaps, and float32 costs lose no digits.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import torch
from numba import njit
from torch import Tensor

LANES = 32
CELLS_PER_THREAD = 1 << 17  # below this a second thread costs more than it saves
UNREACHED = -(1 << 61)  # exponent of a cell that no path enters
LIMIT = float(1 << 46)  # largest cost a cell may have, in powers of two; stands for infinity
ROUND = 1.5 * 2.0**52  # adding it to x leaves round(x) in the low bits of the sum
ROUND_BITS = np.int64(np.float64(ROUND).view(np.int64))
ONE_BITS = np.int64(1023 << 52)
MANTISSA = np.int64((1 << 52) - 1)
LN2 = math.log(2.0)
EXP_SERIES = tuple(LN2**k / math.factorial(k) for k in range(13))  # 2**r for |r| <= 1/2, to 2e-16


@numba.extending.intrinsic
def _bits(typingctx, x):
    """The 64 bits of a float64 as an int64."""
    return numba.int64(numba.float64), lambda ctx, builder, sig, args: builder.bitcast(args[0], ctx.get_value_type(numba.int64))


@numba.extending.intrinsic
def _real(typingctx, x):
    """The float64 that has these 64 bits."""
    return numba.float64(numba.int64), lambda ctx, builder, sig, args: builder.bitcast(args[0], ctx.get_value_type(numba.float64))


@njit(inline="always")
def _power_of_two(exponent):
    """2 ** exponent for exponents <= 0; zero below -1022."""
    return _real((max(exponent, -1023) + 1023) << 52)


@njit(inline="always")
def _exp2_fraction(r):
    """2 ** r for |r| <= 1/2."""
    total = EXP_SERIES[12]
    for k in range(11, -1, -1):
        total = total * r + EXP_SERIES[k]
    return total


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _solve(cost, row_lengths, col_lengths, relaxed, scale, value, path, first, last):
    """Fills value[first:last] with log2 of the summed path weights and, if it is not empty, path[first:last] with the expected path."""
    rows, margin = cost.shape[1], 1 if relaxed else 0  # OTAM: a column of zeros on either side
    cols = cost.shape[2] + 2 * margin
    want_path = path.shape[0] > 0
    weight = np.zeros((3, rows + 1 if want_path else 1, cols + 1, LANES), cost.dtype)
    mantissa = np.empty((2, cols + 1, LANES))
    exponent = np.empty((2, cols + 1, LANES), np.int64)
    power = np.empty((cols, LANES))
    factor = np.empty((cols, LANES))
    shift = np.empty((cols, LANES), np.int64)
    barrier = np.zeros((cols, LANES), np.int64)
    flow = np.empty((2, cols + 1, LANES))
    spoilt = np.empty(LANES)
    for start in range(first, last, LANES):
        lanes = min(LANES, last - start)
        if relaxed:
            for j in range(2, cols):
                for lane in range(lanes):
                    barrier[j, lane] = 0 if j == col_lengths[start + lane] + 1 else UNREACHED
        mantissa[:] = 1.0
        exponent[:] = UNREACHED
        exponent[1, 0] = 0
        spoilt[:] = 0.0
        for i in range(rows):
            above, here = (i + 1) % 2, i % 2
            power[:] = 0.0  # costs beyond the lengths are not looked at
            for lane in range(lanes):
                if i < row_lengths[start + lane]:
                    for j in range(col_lengths[start + lane]):
                        exact = -scale * cost[start + lane, i, j]
                        power[j + margin, lane] = min(max(exact, -LIMIT), LIMIT)
                        if exact != exact:
                            spoilt[lane] = np.nan
            for j in range(cols):
                for lane in range(LANES):
                    rounded = power[j, lane] + ROUND
                    shift[j, lane] = _bits(rounded) - ROUND_BITS
                    factor[j, lane] = _exp2_fraction(power[j, lane] - (rounded - ROUND))
            for j in range(cols):
                for lane in range(LANES):
                    diagonal = exponent[above, j, lane]
                    left = exponent[here, j, lane]
                    up = exponent[above, j + 1, lane] + barrier[j, lane]
                    top = max(diagonal, left, up)
                    a = mantissa[above, j, lane] * _power_of_two(diagonal - top)
                    b = mantissa[here, j, lane] * _power_of_two(left - top)
                    c = mantissa[above, j + 1, lane] * _power_of_two(up - top)
                    total = a + b + c
                    if want_path:
                        share = 1.0 / total
                        weight[0, i, j, lane] = a * share
                        weight[1, i, j, lane] = b * share
                        weight[2, i, j, lane] = c * share
                    bits = _bits(total * factor[j, lane])
                    exponent[here, j + 1, lane] = top + shift[j, lane] + ((bits >> 52) - 1023)
                    mantissa[here, j + 1, lane] = _real((bits & MANTISSA) | ONE_BITS)
            for lane in range(lanes):
                if i == row_lengths[start + lane] - 1:
                    j = col_lengths[start + lane] + 2 * margin
                    value[start + lane] = exponent[here, j, lane] + math.log2(mantissa[here, j, lane]) + spoilt[lane]
            exponent[above, 0] = UNREACHED
        if want_path:
            flow[:] = 0.0
            for i in range(rows - 1, -1, -1):
                below, here = (i + 1) % 2, i % 2
                for j in range(cols - 1, -1, -1):
                    for lane in range(LANES):
                        flow[here, j, lane] = (
                            flow[below, j + 1, lane] * weight[0, i + 1, j + 1, lane]
                            + flow[here, j + 1, lane] * weight[1, i, j + 1, lane]
                            + flow[below, j, lane] * weight[2, i + 1, j, lane]
                        )
                    for lane in range(lanes):
                        if i == row_lengths[start + lane] - 1 and j == col_lengths[start + lane] + 2 * margin - 1:
                            flow[here, j, lane] += 1.0
                for lane in range(lanes):
                    for j in range(col_lengths[start + lane]):
                        path[start + lane, i, j] = flow[here, j + margin, lane] + spoilt[lane]


def solve(
    cost: Tensor, row_lengths: Tensor, col_lengths: Tensor, relaxed: bool, smoothing: float, want_path: bool
) -> tuple[Tensor, Tensor | None]:
    """As `mmpt.ops._wavefront.solve`, for CPU tensors and smoothing > 0. Costs from about 5e13 * smoothing on count as infinite."""
    # contiguous: every other memory layout would be compiled anew
    costs, row_lengths, col_lengths = (x.detach().contiguous().numpy() for x in (cost, row_lengths, col_lengths))
    count = len(costs)
    value = np.empty(count)
    path = np.zeros(costs.shape if want_path else (0, 0, 0), costs.dtype)
    arguments = costs, row_lengths, col_lengths, relaxed, 1.0 / (smoothing * LN2), value, path
    threads = max(1, min(torch.get_num_threads(), costs.size // CELLS_PER_THREAD))
    share = -(-count // threads)
    parts = [(start, min(start + share, count)) for start in range(0, count, share)]
    if len(parts) == 1:
        _solve(*arguments, *parts[0])
    else:
        with ThreadPoolExecutor(len(parts)) as pool:
            for job in [pool.submit(_solve, *arguments, *part) for part in parts]:
                job.result()
    value[value < -LIMIT / 2] = -np.inf
    return torch.from_numpy(value).mul_(-smoothing * LN2).to(cost.dtype), torch.from_numpy(path) if want_path else None
