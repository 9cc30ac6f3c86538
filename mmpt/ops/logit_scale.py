"""The inverse temperature that multiplies scores, fixed or learned.

A model learns its logarithm, `logit_scale`, so that it stays positive and steps of the optimizer are relative
(CLIP, arXiv 2103.00020).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

TEMPERATURE = 0.07
INITIAL_LOGIT_SCALE = math.log(1 / TEMPERATURE)
LARGEST_LOGIT_SCALE = math.log(100)  # CLIP's bound: larger factors make training unstable


def inverse_temperature(
    logit_scale: Tensor | None,
    like: Tensor,
    temperature: float = TEMPERATURE,
    least: float | None = None,
    most: float = LARGEST_LOGIT_SCALE,
) -> Tensor:
    """exp(logit_scale) with the exponent held in [least, most], or 1 / temperature where none is learned.

    Args:
        logit_scale: scalar, logarithm of the inverse temperature; None: not learned.
        like: scores or vectors, whose device and dtype the result takes; float32 for half precision.
        temperature: used where `logit_scale` is None.
        least: lower bound of the exponent; None: none.
        most: its upper bound.

    Returns:
        scalar.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    if logit_scale is None:
        return like.new_full((), 1 / temperature, dtype=dtype)
    exponent = logit_scale.to(dtype)
    # The bound is a constant to autograd: at it the gradient still flows, so that the scale can come back.
    return (exponent + (exponent.clamp(least, most) - exponent).detach()).exp()
