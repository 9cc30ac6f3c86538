"""Dynamic programmes of alignment as loops over cells, to compare with."""

from __future__ import annotations

import numpy as np
import torch


def softmin(values, smoothing):
    values = np.array([v for v in values if v < np.inf])
    if not len(values):
        return np.inf
    if not smoothing:
        return values.min()
    return values.min() - smoothing * np.log(np.exp((values.min() - values) / smoothing).sum())


def loop_dtw(d, smoothing):
    rows, cols = d.shape
    a = np.full((rows + 1, cols + 1), np.inf)
    a[0, 0] = 0.0
    for i in range(rows):
        for j in range(cols):
            a[i + 1, j + 1] = d[i, j] + softmin([a[i, j], a[i + 1, j], a[i, j + 1]], smoothing)
    return a[-1, -1]


def loop_otam(d, smoothing):
    rows, cols = d.shape
    p = np.pad(d, ((0, 0), (1, 1)))
    a = np.zeros((rows, cols + 2))
    a[0] = np.cumsum(p[0])
    for i in range(1, rows):
        for j in range(1, cols + 2):
            ways = [a[i - 1, j - 1], a[i, j - 1]] + ([a[i - 1, j]] if j in (1, cols + 1) else [])
            a[i, j] = p[i, j] + softmin(ways, smoothing)
    return a[-1, -1]


def random_cost(*shape, seed=0, dtype=torch.float64, low=-1.0, high=2.0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) * (high - low) + low
