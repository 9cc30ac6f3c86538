"""Few-shot classification: a batch is one episode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mmpt.registry import TASKS
from mmpt.tasks.task import Task


@TASKS.register()
class FewShotTask(Task):
    """Episodes of support and query videos; several of them per update through
    `fairseq.optimization.update_freq`."""

    def flatten(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """(1, S, ...) -> (S, ...)."""
        if sample["support"].shape[0] != 1:
            raise ValueError(
                f"a batch holds {sample['support'].shape[0]} episodes; set fairseq.dataset.batch_size: 1 "
                "and use update_freq."
            )
        return {
            name: value[0] if isinstance(value, Tensor) and value.dim() > 1 else value
            for name, value in sample.items()
        }

    def count(self, batch: Mapping[str, Any]) -> tuple[int, Tensor]:
        """Queries; there are no captions to miss."""
        return len(batch["query"]), torch.zeros((), device=batch["query"].device)
