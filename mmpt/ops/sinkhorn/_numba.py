"""Sinkhorn steps of many small problems as one compiled CPU loop (optional: needs numba). Same numbers as the
eager steps, to rounding."""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

# problems worked on side by side, innermost, so that every loop over them turns into vector instructions
LANES = 128


def compiled_steps(kernel: Tensor, mu: Tensor, nu: Tensor, b: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`count` row-then-column steps; kernel (N, M, B), mu (N, B), nu and b (M, B)."""
    a, b = (
        torch.empty_like(mu, memory_format=torch.contiguous_format),
        b.clone(memory_format=torch.contiguous_format),
    )
    _steps(kernel.numpy(), mu.numpy(), nu.numpy(), a.numpy(), b.numpy(), count)
    return a, b


@numba.njit(fastmath={"contract", "reassoc", "arcp"}, cache=True, error_model="numpy")
def _steps(kernel, mu, nu, a, b, count):
    n, m, batch = kernel.shape
    local = np.ones((n, m, LANES), kernel.dtype)  # lanes without a problem solve one of ones
    mass = np.ones((n + m, LANES), kernel.dtype)
    row, column = np.ones((n, LANES), kernel.dtype), np.ones((m, LANES), kernel.dtype)
    for start in range(0, batch, LANES):
        part, lanes = slice(start, min(start + LANES, batch)), min(LANES, batch - start)
        local[:, :, :lanes] = kernel[:, :, part]
        mass[:n, :lanes], mass[n:, :lanes], column[:, :lanes] = mu[:, part], nu[:, part], b[:, part]
        for _ in range(count):
            for i in range(n):
                _divide_by_product(mass[i], local[i], column, row[i])
            for j in range(m):
                _divide_by_product(mass[n + j], local[:, j], row, column[j])
        a[:, part], b[:, part] = row[:, :lanes], column[:, :lanes]


@numba.njit(fastmath={"contract", "reassoc", "arcp"}, inline="always")
def _divide_by_product(mass, kernel, factors, out):
    """out = mass / sum_j kernel[j] * factors[j], lane by lane."""
    for k in range(LANES):
        out[k] = kernel[0, k] * factors[0, k]
    for j in range(1, len(factors)):
        for k in range(LANES):
            out[k] += kernel[j, k] * factors[j, k]
    for k in range(LANES):
        out[k] = mass[k] / out[k]
