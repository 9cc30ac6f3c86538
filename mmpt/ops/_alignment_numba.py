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

LANES = 16
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


@njit(inline="always")
def _expected_path(weight, flow, end_row, end_col, path, start, lanes):
    """From the end cells back: the flow of a cell is what its three successors hand it, by their weights."""
    rows, cols = path.shape[1], path.shape[2]
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
                if i == end_row[start + lane] and j == end_col[start + lane]:
                    flow[here, j, lane] += 1.0
        for lane in range(lanes):
            for j in range(cols):
                path[start + lane, i, j] = flow[here, j, lane]


@njit(nogil=True, cache=True, error_model="numpy")
def _solve(cost, vertical, end_row, end_col, scale, value, path, first, last):
    """Fills value[first:last] with log2 of the summed path weights and, if it is not empty, path[first:last] with the expected path."""
    rows, cols = cost.shape[1], cost.shape[2]
    want_path = path.shape[2] > 0
    kept = rows if want_path else 0
    weight = np.zeros((3, kept + 1, cols + 1, LANES), cost.dtype)
    mantissa = np.empty((2, cols + 1, LANES))
    exponent = np.empty((2, cols + 1, LANES), np.int64)
    power = np.empty((cols, LANES))
    flow = np.empty((2, cols + 1, LANES))
    for start in range(first, last, LANES):
        lanes = min(LANES, last - start)
        power[:] = 0.0
        mantissa[:] = 1.0
        exponent[:] = UNREACHED
        exponent[1, 0] = 0
        for i in range(rows):
            above, here = (i + 1) % 2, i % 2
            for lane in range(lanes):
                for j in range(cols):
                    power[j, lane] = min(max(-scale * cost[start + lane, i, j], -LIMIT), LIMIT)
            for j in range(cols):
                for lane in range(LANES):
                    diagonal = exponent[above, j, lane]
                    left = exponent[here, j, lane]
                    up = exponent[above, j + 1, lane] if vertical[j, lane + start] else UNREACHED
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
                    rounded = power[j, lane] + ROUND
                    bits = _bits(total * _exp2_fraction(power[j, lane] - (rounded - ROUND)))
                    exponent[here, j + 1, lane] = top + (_bits(rounded) - ROUND_BITS) + ((bits >> 52) - 1023)
                    mantissa[here, j + 1, lane] = _real((bits & MANTISSA) | ONE_BITS)
            for lane in range(lanes):
                if i == end_row[start + lane]:
                    j = end_col[start + lane] + 1
                    value[start + lane] = exponent[here, j, lane] + math.log2(mantissa[here, j, lane])
            exponent[above, 0] = UNREACHED
        if want_path:
            _expected_path(weight, flow, end_row, end_col, path, start, lanes)


def solve(
    cost: Tensor, vertical: Tensor, end_row: Tensor, end_col: Tensor, smoothing: float, want_path: bool
) -> tuple[Tensor, Tensor | None]:
    """As `mmpt.ops._wavefront.solve`, for CPU tensors and smoothing > 0. Costs from about 5e13 * smoothing on count as infinite."""
    count, rows, cols = cost.shape
    value = np.empty(count)
    path = np.empty((count, rows, cols) if want_path else (0, 0, 0), cost.detach().numpy().dtype)
    lanes_last = np.ones((cols, count + LANES), np.bool_)  # lanes of a last, partly filled block read beyond count
    lanes_last[:, :count] = vertical.T.numpy()
    arguments = cost.detach().numpy(), lanes_last, end_row.numpy(), end_col.numpy(), 1.0 / (smoothing * LN2), value, path

    threads = max(1, min(torch.get_num_threads(), cost.numel() // CELLS_PER_THREAD))
    share = -(-count // threads)
    parts = [(start, min(start + share, count)) for start in range(0, count, share)]
    if len(parts) == 1:
        _solve(*arguments, *parts[0])
    else:
        with ThreadPoolExecutor(len(parts)) as pool:
            for job in [pool.submit(_solve, *arguments, *part) for part in parts]:
                job.result()

    value[value < -LIMIT / 2] = -np.inf
    result = torch.from_numpy(value).mul_(-smoothing * LN2).to(cost.dtype)
    spoilt = cost.isnan().any(-1).any(-1)
    result[spoilt] = torch.nan
    if not want_path:
        return result, None
    path = torch.from_numpy(path)
    path[spoilt] = torch.nan
    return result, path
