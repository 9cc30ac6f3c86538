"""Half-precision inputs are computed in float32; float64 stays float64."""

from __future__ import annotations

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)


def full_precision(x: Tensor) -> Tensor:
    """`x` itself, or its float32 copy when it is float16 or bfloat16."""
    return x.float() if x.dtype in HALF else x


def autocast_off(x: Tensor) -> torch.autocast:
    """Context in which autocast does not touch operations on the device of `x`."""
    return torch.autocast(x.device.type, enabled=False)
