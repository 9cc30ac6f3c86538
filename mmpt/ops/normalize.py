"""Rows of unit length.

Shapes: N rows, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmpt.ops.precision import full_precision


def unit_rows(x: Tensor) -> Tensor:
    """Rows of `x` (..., D) divided by their norm, in at least float32; zero rows stay zero and receive no
    gradient."""
    x = full_precision(x)
    square = x.square().sum(-1, keepdim=True)
    positive = square > torch.finfo(x.dtype).tiny
    # The inner where keeps 1/0 out of the backward pass, in which the outer one alone would leave 0 * inf.
    return torch.where(positive, x * torch.where(positive, square, 1.0).rsqrt(), 0.0)


def unit_rows_once(x: Tensor) -> Tensor:
    """As `unit_rows`, but rows (..., D) that have unit length pass untouched: of them `x / |x|` is `x` again,
    up to rounding that would make a loss depend on how often its input was normalized on the way."""
    return _UnitOnce.apply(full_precision(x))


class _UnitOnce(torch.autograd.Function):
    """Written out because of small tensors autograd's steps take longer than their numbers."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        tolerance = 1e-9 if x.dtype == torch.float64 else 1e-5  # some roundings of a sum of D squares
        touched = (norm > torch.finfo(x.dtype).tiny) & ((norm - 1).abs() > tolerance)
        norm = norm.where(touched, 1.0)
        unit = x / norm
        ctx.save_for_backward(unit, norm, touched)
        return unit

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        unit, norm, touched = ctx.saved_tensors
        along = (unit * grad).sum(-1, keepdim=True) * touched
        return torch.addcmul(grad, unit, along, value=-1).div_(norm)
