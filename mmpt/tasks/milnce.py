"""MIL-NCE: several candidate captions a clip.

Shapes: B items, K clips each, C candidate captions a clip, T text positions, F seconds, D feature width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mmpt.config import Config
from mmpt.registry import TASKS
from mmpt.tasks.task import Task


@TASKS.register()
class MILNCETask(Task):
    """A task over batches of `How2MILNCEAligner`; the model sees B*K clips and B*K*C captions, a clip's
    candidates together."""

    def __init__(self, config: Config):
        super().__init__(config)
        if config.model.micro_batch:
            raise ValueError(
                f"{config.source}: model.micro_batch={config.model.micro_batch} cuts clips and captions "
                "alike, but MILNCETask has several "
                "captions a clip. Remove it."
            )

    def flatten(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """caps, cmasks (B, K, C, T) -> (B*K*C, T); vfeats (B, K, F, D) -> (B*K, F, D)."""
        batch = {
            name: value.flatten(0, 1) if isinstance(value, Tensor) and value.dim() >= 2 else value
            for name, value in sample.items()
        }
        return batch | {name: batch[name].flatten(0, 1) for name in ("caps", "cmasks")}

    def count(self, batch: Mapping[str, Any]) -> tuple[int, Tensor]:
        """Clips, and how many of them have candidates without words only."""
        n_clips = len(batch["vfeats"])
        wordless = (
            batch["cmasks"].view(n_clips, -1, batch["cmasks"].shape[-1]).sum(-1) <= 3
        )  # (B*K, C): nothing but special tokens
        return n_clips, wordless.all(1).sum()
