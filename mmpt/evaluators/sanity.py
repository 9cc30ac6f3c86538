"""Sanity checks: mistakes that give plausible, wrong numbers, recognised from what an evaluation has at hand.

Each finding is a sentence with its cure."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmpt.evaluators.result import Result
from mmpt.utils.text import first_of


def unequal_sides(n_queries: int, n_items: int) -> list[str]:
    """More or fewer queries than gallery items, where published retrieval pairs them one to one."""
    if n_queries == n_items:
        return []
    return [
        f"{n_queries} queries against a gallery of {n_items}: published retrieval numbers have as many "
        "queries as gallery items. "
        "Compare with them only after both come from one list."
    ]


def unloaded_layers(checkpoint: str, missing: Sequence[str]) -> list[str]:
    """Model tensors that the checkpoint does not hold: they keep their first, random values."""
    if not missing:
        return []
    return [
        f"{checkpoint} lacks {len(missing)} tensors of the model "
        f"({first_of(missing, 3)}): they "
        "keep random values and the scores are those of a partly untrained model. Use the model section "
        "it was trained with."
    ]


def unset_batch_norm(checkpoint: str, model: nn.Module) -> list[str]:
    """BatchNorm layers whose running statistics are still those of a new layer: they normalise by nothing
    that was ever measured.

    Happens where they were frozen from the start, or where the file holds weights alone. Whether statistics
    that should have been frozen drifted during fine-tuning cannot be seen from one checkpoint.
    """
    norms = [
        (name, layer)
        for name, layer in model.named_modules()
        if isinstance(layer, _BatchNorm) and layer.track_running_stats
    ]
    unset = [name for name, layer in norms if not layer.running_mean.any() and (layer.running_var == 1).all()]
    if not unset:
        return []
    return [
        f"{checkpoint}: {len(unset)} of {len(norms)} BatchNorm layers (first: {unset[0]}) hold the "
        "running mean 0 and variance 1 of a new "
        "layer. Their statistics were frozen before any were taken, or are not in the file; use the "
        "checkpoint that has them."
    ]


def no_better_than_trivial(result: Result) -> list[str]:
    """A result whose interval reaches down to what needs no model."""
    name = result.best_metric
    if name not in result.intervals:
        return []
    low, high = result.intervals[name]
    levels = {
        model: values.get(name, values.get(name.rsplit("-", 1)[-1]))
        for model, values in result.baselines.items()
    }
    return [
        f"{name} = {result.best:.4f} [{low:.4f}, {high:.4f}] is not above {model!r}, which needs no "
        f"model and reaches {level:.4f}: "
        "these numbers do not show that the model has learnt the task."
        for model, level in levels.items()
        if level is not None and low <= level
    ]
