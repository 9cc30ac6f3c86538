"""Half-precision inputs are computed in float32; float64 stays float64. Matrix products at a chosen precision
and speed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor

R = TypeVar("R")
HALF = (torch.float16, torch.bfloat16)
PRECISIONS = ("auto", "float32", "tf32", "bf16")


def full_precision(x: Tensor) -> Tensor:
    """`x` itself, or its float32 copy when it is float16 or bfloat16."""
    return x.float() if x.dtype in HALF else x


_outside = threading.local()


def _autocast_is_on(device: torch.device) -> bool:
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)


def autocast_off(x: Tensor) -> AbstractContextManager:
    """Context in which autocast does not touch operations on the device of `x`. What it would have made of
    large products is remembered: `resolved` goes by it."""
    return _autocast_off(x.device.type) if _autocast_is_on(x.device) else nullcontext()


@contextmanager
def _autocast_off(kind: str) -> Iterator[None]:
    before = getattr(_outside, "on", False)
    _outside.on = True
    try:
        with torch.autocast(kind, enabled=False):
            yield
    finally:
        _outside.on = before


def under_autocast(function: Callable[..., R], x: Tensor) -> Callable[..., R]:
    """`function` under the autocast that is on now for the device of `x`, wherever it is called later: losses
    switch it off, and what they call of a model is a network."""
    kind = x.device.type
    if not _autocast_is_on(x.device):
        return function
    dtype = torch.get_autocast_dtype(kind)

    def called(*args: Any, **kwargs: Any) -> R:
        with torch.autocast(kind, dtype):
            return function(*args, **kwargs)

    return called


def product(
    a: Tensor, b: Tensor, precision: str = "float32", rounded_result: bool = False, bias: Tensor | None = None
) -> Tensor:
    """a @ b.T of (P, K) and (Q, K), sums in at least float32, for use outside autograd.

    Where torch has oneDNN, float32 goes there: its products are as exact as those of the BLAS behind `@`, and
    on some CPUs twice as fast.

    Args:
        a: (P, K).
        b: (Q, K), same type.
        precision: "float32", or where the hardware is faster with it: "tf32" rounds float32 factors to TF32
            (CUDA), "bf16" to bfloat16 (CPU) or TF32 (CUDA). Others stay as they are.
        rounded_result: "bf16" may round the sums, too: most CPUs are faster only if they may. The result is
            then bfloat16.
        bias: (Q,) added to every row; not with `rounded_result`.
    """
    if a.dtype != torch.float32 or a.device.type != "cpu":
        with _float32_products_as(precision):
            return a @ b.T if bias is None else torch.addmm(bias, a, b.T)
    if rounded_result and precision == "bf16" and torch.cpu.get_capabilities().get("avx512_bf16"):
        return a.bfloat16() @ b.bfloat16().T
    if precision != "bf16" and torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled:
        return torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")
    with _float32_products_as(precision):
        return a @ b.T if bias is None else torch.addmm(bias, a, b.T)


def wide_product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b.T of (P, K) and (Q, K), same type, sums and result in at least float32, for use outside autograd.

    On an NVIDIA GPU half-precision factors go to the tensor cores as they are, whose products are exact.
    """
    if a.dtype in HALF and multiplies_halves(a.device):
        return torch.mm(a, b.T, out_dtype=torch.float32)
    return product(full_precision(a), full_precision(b))


def multiplies_halves(device: torch.device) -> bool:
    """Can the device multiply half-precision factors into float32?"""
    return device.type in ("cuda", "meta") and not torch.version.hip and hasattr(torch.ops.aten.mm, "dtype")


def resolved(precision: str, *factors: Tensor) -> str:
    """What "auto" means for factors: "bf16" where all come in half precision, or are float32 under an
    autocast, and the hardware multiplies it natively; else "float32"."""
    if precision != "auto":
        return precision
    device = factors[0].device
    halves = all(x.dtype in HALF for x in factors)
    if getattr(_outside, "on", False) or _autocast_is_on(device):
        halves = all(x.dtype != torch.float64 for x in factors)
    return "bf16" if halves and multiplies_natively(device) else "float32"


def multiplies_natively(device: torch.device) -> bool:
    """Does the hardware multiply factors of half precision, rather than convert them first?"""
    return device.type == "cuda" or bool(torch.cpu.get_capabilities().get("avx512_bf16"))


@contextmanager
def _float32_products_as(precision: str) -> Iterator[None]:
    if precision == "float32":
        yield
        return
    cpu, cuda = torch.backends.mkldnn.matmul, torch.backends.cuda.matmul
    before = cpu.fp32_precision, cuda.fp32_precision
    cpu.fp32_precision, cuda.fp32_precision = before[0] if precision == "tf32" else "bf16", "tf32"
    try:
        yield
    finally:
        cpu.fp32_precision, cuda.fp32_precision = before
