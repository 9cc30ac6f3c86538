"""VLM's pre-training task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mmpt.registry import TASKS
from mmpt.tasks.task import Task
from mmpt.utils.columns import LENGTHS


@TASKS.register()
class VLMTask(Task):
    """A task whose rows are ordered as published: the clips of each item at even places first, then those at
    odd places."""

    def flatten(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """(B, K, ...) -> (B*K, ...)."""
        clips = self.config.dataset.subsampling or 1
        if clips % 2:
            raise ValueError(
                f"{self.config.source}: dataset.subsampling={clips}: VLMTask needs an even number of "
                "clips per item."
            )
        rows = {name: _halves(value) for name, value in sample.items()}
        if LENGTHS in sample:
            rows[LENGTHS] = {name: n[::2] + n[1::2] for name, n in sample[LENGTHS].items()}
        return rows


def _halves(value: Any) -> Any:
    if not isinstance(value, Tensor) or value.dim() < 2:
        return value
    pairs = value.reshape(-1, 2, *value.shape[2:])
    return torch.cat([pairs[:, 0], pairs[:, 1]])
