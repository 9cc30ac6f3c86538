"""Half-precision inputs are computed in float32; float64 stays float64."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)
PRECISIONS = ("float32", "bf16")


def full_precision(x: Tensor) -> Tensor:
    """`x` itself, or its float32 copy when it is float16 or bfloat16."""
    return x.float() if x.dtype in HALF else x


def autocast_off(x: Tensor) -> torch.autocast:
    """Context in which autocast does not touch operations on the device of `x`."""
    return torch.autocast(x.device.type, enabled=False)


@contextmanager
def matrix_products(precision: str) -> Iterator[None]:
    """Precision of the factors of float32 matrix products inside; sums are float32 either way.

    Args:
        precision: "float32", or "bf16": where the hardware is faster with it, factors are rounded to bfloat16 (CPU) or TF32 (CUDA).
            What the hardware does not speed up stays float32.
    """
    if precision == "float32":
        yield
        return
    cpu, cuda = torch.backends.mkldnn.matmul, torch.backends.cuda.matmul
    before = cpu.fp32_precision, cuda.fp32_precision
    cpu.fp32_precision, cuda.fp32_precision = "bf16", "tf32"
    try:
        yield
    finally:
        cpu.fp32_precision, cuda.fp32_precision = before
