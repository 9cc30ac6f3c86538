"""Unit vectors to try, and the tuples of the golden arrays."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def unit(*shape, seed=0, dtype=torch.float64):
    return F.normalize(
        torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1
    ).to(dtype)


def tuples(k, n=6, d=10, dtype=torch.float64):
    return [unit(n, d, seed=10 + m, dtype=dtype) for m in range(k)]


def modalities_of(golden, dtype=torch.float64):
    return [
        torch.tensor(golden[f"mod_{m}"], dtype=dtype, requires_grad=True)
        for m in range(len(golden["modalities"]))
    ]
