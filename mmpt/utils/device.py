"""The device that a command line names."""

from __future__ import annotations

import torch


def choose_device(name: str = "auto") -> torch.device:
    """`auto` is the first GPU where there is one.

    Raises:
        ValueError: a GPU is asked for, and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(
            "device cuda: torch sees no GPU here; use --device cpu, or --device auto to take what is there."
        )
    return torch.device(name)
