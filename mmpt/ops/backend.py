"""Which implementation computes an operator: torch everywhere, numba on a CPU, Triton on a GPU.

All of them give the same numbers, to rounding. Operators choose by the device of their input; a keyword of
the operator overrides that for one call, the environment variable MMPT_BACKEND (torch, numba or triton) for
the process, wherever the one it names can do the work.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os

import torch
from torch import Tensor

BACKENDS = ("torch", "numba", "triton")
ENVIRONMENT = "MMPT_BACKEND"
LEAST_VERSION = {"triton": "3.6"}  # the oldest that its kernels are compiled with in the tests
LEAST_CAPABILITY = (8, 0)  # of an NVIDIA GPU: bfloat16 and TF32 products, asynchronous copies


def choose(asked: str, x: Tensor, **cannot: str | None) -> str:
    """The backend that computes an operator on `x`.

    Args:
        asked: "auto", or the name of a backend.
        x: the input that decides by its device and dtype.
        cannot: backends that offer the operator, best first: None, or why one cannot do what is asked.

    Raises:
        ValueError: the backend asked for is unknown, or cannot do it; the message says why.
    """
    if asked == "auto":
        wish = os.environ.get(ENVIRONMENT, "")
        if wish and wish not in BACKENDS:
            raise ValueError(f"{ENVIRONMENT}={wish} names no backend. Use one of {', '.join(BACKENDS)}.")
        on_cpu = x.device.type == "cpu"  # where Triton has no more than its interpreter, for tests
        order = [name for name in cannot if name == wish or not (name == "triton" and on_cpu)]
        order.sort(key=lambda name: name != wish)
        return next(name for name in order if not (cannot[name] or _absent(name, x)))
    if asked not in cannot:
        raise ValueError(f"backend {asked!r} is unknown here. Use one of auto, {', '.join(cannot)}.")
    reason = cannot[asked] or _absent(asked, x)
    if reason:
        raise ValueError(f"backend {asked!r} cannot be used: {reason}. Use 'auto' or 'torch'.")
    return asked


def _absent(name: str, x: Tensor) -> str | None:
    """Why a backend cannot work on `x`, or None."""
    if name == "torch":
        return None
    if name == "numba":
        return f"it works on the CPU, not on {x.device}" if x.device.type != "cpu" else _missing(name)
    if x.dtype == torch.float64:
        return "it computes in float32, and the input is float64"
    return _missing(name) or _no_kernels(x.device)


@functools.cache
def _missing(package: str) -> str | None:
    if importlib.util.find_spec(package) is None:
        return f"{package} is not installed (pip install {package})"
    if package not in LEAST_VERSION:
        return None
    least, found = LEAST_VERSION[package], importlib.import_module(package).__version__
    new_enough = [int(part) for part in found.split(".")[:2]] >= [int(part) for part in least.split(".")]
    return None if new_enough else f"{package} {found} is older than {least}"


@functools.cache
def _no_kernels(device: torch.device) -> str | None:
    if device.type == "cuda" and not torch.version.hip:
        capability = torch.cuda.get_device_capability(device)
        return (
            None if capability >= LEAST_CAPABILITY else f"it needs compute capability 8.0, not {capability}"
        )
    interpreted = os.environ.get("TRITON_INTERPRET") == "1" and device.type == "cpu"
    return None if interpreted else f"it works on an NVIDIA GPU, not on {device} (or TRITON_INTERPRET=1)"
