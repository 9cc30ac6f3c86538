"""What a model takes from the training data before its first update: mean features, counts of word pieces."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn


def observers(model: nn.Module) -> list[Any]:
    """The parts of a model that want to see training data: those with `observe(**batch)` and `settle()`."""
    return [part for part in model.modules() if hasattr(part, "observe") and hasattr(part, "settle")]


@torch.no_grad()
def prepare(model: nn.Module, batches: Iterable[Mapping[str, Any]]) -> None:
    """Show training batches (caps, cmasks (B, T), vfeats (B, F, D), vmasks (B, F)) to the parts that want to
    see them, each once."""
    parts = observers(model)
    if not parts:
        return
    for batch in batches:
        for part in parts:
            part.observe(**batch)
    for part in parts:
        part.settle()
