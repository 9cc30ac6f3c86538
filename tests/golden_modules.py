"""Networks of the releases, run at tiny sizes: how their golden files are read and compared."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

ROUNDING = 1e-11  # of float64 sums, relative to the largest entry


def arrays_below(golden: Mapping[str, np.ndarray], prefix: str) -> dict[str, Tensor]:
    """`prefix.name` -> tensor, under the plain names."""
    return {
        k.removeprefix(f"{prefix}."): torch.from_numpy(v)
        for k, v in golden.items()
        if k.startswith(f"{prefix}.")
    }


def settings(golden: Mapping[str, np.ndarray]) -> dict[str, object]:
    """`cfg.name` -> plain value."""
    return {
        name.removeprefix("cfg."): value.item()
        for name, value in golden.items()
        if name.startswith("cfg.") and value.ndim == 0
    }


def assert_equal_up_to_rounding(
    actual: Tensor | np.ndarray, expected: Tensor | np.ndarray, tolerance: float = ROUNDING
) -> None:
    """Largest difference relative to the largest expected entry."""
    actual, expected = (torch.as_tensor(x).detach() for x in (actual, expected))
    assert actual.shape == expected.shape, f"shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    scale = expected.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
    error = float((actual - expected).abs().max() / scale)
    assert error <= tolerance, f"relative error {error:.2e} > {tolerance:.0e}"


def assert_gradients(module: nn.Module, expected: Mapping[str, Tensor], noise: float = 1e-13) -> None:
    """Gradients of parameters; an expected one of rounding size alone stands for zero (a bias of keys shifts
    all scores alike).
    """
    for name, gradient in expected.items():
        actual = module.get_parameter(name).grad
        if gradient.abs().max() < noise:
            assert actual.abs().max() < noise, name
        else:
            assert_equal_up_to_rounding(actual, gradient)
