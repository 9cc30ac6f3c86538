"""Sanity checks: mistakes that give plausible, wrong numbers, recognised from what an evaluation has at hand.

Each finding is a sentence with its cure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmpt.evaluators.result import Result

SEVERAL_CAPTIONS = 1.5  # captions per item: a published list may name a clip twice, this many are no accident
DOWNSTREAM = re.compile(r"vtt|youcook|coin|crosstask|didemo|htm_align|ucf|hmdb")


def repeated_items(n_listed: int, n_different: int) -> list[str]:
    """A gallery whose items stand under several rows: a query's own video is then also a wrong answer."""
    if n_different >= n_listed:
        return []
    found = f"the gallery lists {n_listed} items but only {n_different} different ones"
    if n_listed <= SEVERAL_CAPTIONS * n_different:
        return [f"{found}: a query's own video also stands under other rows, which lowers its rank."]
    return [
        f"{found}, {n_listed / n_different:.0f} captions for each: with all captions of a video in the "
        "gallery R@1 drops to a fraction "
        "(MSR-VTT has 20 per video). Use a list with one caption per video (MSR-VTT: "
        "MSRVTT_JSFUSION_test.csv)."
    ]


def unequal_sides(n_queries: int, n_items: int) -> list[str]:
    """More or fewer queries than gallery items, where published retrieval pairs them one to one."""
    if n_queries == n_items:
        return []
    return [
        f"{n_queries} queries against a gallery of {n_items}: published retrieval numbers have as many "
        "queries as gallery items. "
        "Compare with them only after both come from one list."
    ]


def wrong_rate(folder: str, passports: Sequence[Mapping[str, Any]]) -> list[str]:
    """Features that are not one per second, by their passport: every time in annotations then points to wrong
    rows."""
    rates = sorted({passport.get("seconds_per_feature", 1.0) for passport in passports} - {1.0})
    if not rates:
        return []
    return [
        f"{folder}: one feature per {', '.join(map(str, rates))} s by the passport, expected one per "
        "second: clips are cut, and lengths "
        "counted, in rows. Extract the features at one per second."
    ]


def fine_tuned_as_zero_shot(source: str, checkpoint: str, trained: Mapping[str, Any]) -> list[str]:
    """A zero-shot project file run with weights that saw labels.

    Args:
        source: the project file; zero-shot ones have `_zs` in their name.
        checkpoint: the weights.
        trained: what the checkpoint says about its training, `project` and `data` (train_path, tfeat_dir);
            pre-training has narration shards (tfeat_dir), downstream training has none.
    """
    data, project = trained.get("data", {}), trained.get("project") or ""
    downstream = "train_path" in data and "tfeat_dir" not in data
    if "_zs" not in Path(source).stem or not (
        downstream or ("train_path" not in data and DOWNSTREAM.search(Path(project).stem))
    ):
        return []
    return [
        f"{source} is named zero-shot, but {checkpoint} was trained on "
        f"{data.get('train_path') or project}: its number is one of "
        "fine-tuning. Use the pre-trained checkpoint."
    ]


def unloaded_layers(checkpoint: str, missing: Sequence[str]) -> list[str]:
    """Model tensors that the checkpoint does not hold: they keep their first, random values."""
    if not missing:
        return []
    return [
        f"{checkpoint} lacks {len(missing)} tensors of the model "
        f"({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}): they "
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
