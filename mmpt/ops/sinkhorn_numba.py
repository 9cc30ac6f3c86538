"""Sinkhorn steps of many small problems as one compiled loop; needs numba, and gives the numbers of the eager steps to rounding."""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

LANES = 64  # problems worked on together: their kernels fit the first-level cache, their sums the vector registers


def compiled_steps(kernel: Tensor, mu: Tensor, nu: Tensor, b: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`count` row-then-column steps; kernel (N, M, B), mu (N, B), nu and b (M, B), on the CPU."""
    a, b = torch.empty_like(mu, memory_format=torch.contiguous_format), b.clone(memory_format=torch.contiguous_format)
    _steps(*(x.contiguous().numpy() for x in (kernel, mu, nu)), a.numpy(), b.numpy(), count)
    return a, b


@numba.njit(fastmath={"contract", "reassoc", "arcp"}, cache=True, error_model="numpy")
def _steps(kernel, mu, nu, a, b, count):
    n, m, batch = kernel.shape
    local = np.empty((n, m, LANES), kernel.dtype)
    row, column = np.empty((n, LANES), kernel.dtype), np.empty((m, LANES), kernel.dtype)
    total = np.empty(LANES, kernel.dtype)
    for start in range(0, batch, LANES):
        width = min(LANES, batch - start)
        local[:, :, :] = 0
        local[:, :, :width] = kernel[:, :, start : start + width]
        column[:, :] = 1
        column[:, :width] = b[:, start : start + width]
        for _ in range(count):
            for i in range(n):
                total[:] = 0
                for j in range(m):
                    for k in range(LANES):
                        total[k] += local[i, j, k] * column[j, k]
                for k in range(width):
                    row[i, k] = mu[i, start + k] / total[k]
            for j in range(m):
                total[:] = 0
                for i in range(n):
                    for k in range(LANES):
                        total[k] += local[i, j, k] * row[i, k]
                for k in range(width):
                    column[j, k] = nu[j, start + k] / total[k]
        a[:, start : start + width] = row[:, :width]
        b[:, start : start + width] = column[:, :width]
