"""Pre-training on batches of videos: one item is already a batch of videos, each cut into clips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from mmpt.config import schema
from mmpt.config.fields import option
from mmpt.neighbours.batches import RetrievalBatches
from mmpt.neighbours.index import VectorRetriever
from mmpt.registry import TASKS
from mmpt.tasks.task import Task


@TASKS.register()
class RetriTask(Task):
    """A task whose training items are groups of videos, composed anew every epoch.

    Before `retri_epoch` (and always when it is null) the groups are a seeded random partition; from then on
    near neighbours.
    """

    GROUPS = True  # what it asks of the meta processor

    @dataclass(frozen=True, kw_only=True)
    class Config(VectorRetriever.Config):
        """When batches are made of neighbours, and how these are found."""

        retri_epoch: int | None = option(None, "first epoch with retrieval-augmented batches")
        vectorpool_cls: str | None = option(None, "vector pool class")
        retriever_cls: str | None = option(None, "retriever class")
        num_cands: int | None = option(None, "neighbours requested per video")

    def __init__(self, config: schema.Config):
        super().__init__(config)
        self._retrieval: RetrievalBatches | None = None
        self._resume: dict[str, Any] = {}
        self._last_epoch = config.trainer.max_epoch

    def begin_epoch(self, dataset: Any, epoch: int, model: nn.Module | None) -> None:
        """Compose this epoch's groups of videos; on a resumed run, those the run was in the middle of."""
        if not self._retrieves(epoch):
            dataset.meta_processor.random_candidates(np.random.default_rng((dataset.seed, epoch)))
            return
        if self._retrieval is None:
            folder = self.config.save_dir / "retri"
            self._retrieval = RetrievalBatches(self.config, folder, dataset.seed)
        expected = self._resume.pop("fingerprint", None) if self._resume.get("epoch") == epoch else None
        dataset.meta_processor.set_candidates(self._retrieval.compose(epoch, model, expected))

    def _retrieves(self, epoch: int) -> bool:
        first = self.config.retri_epoch
        # fairseq asks for the batches of one epoch past the last
        return first is not None and epoch >= first and not (self._last_epoch and epoch > self._last_epoch)

    def resume_state(self) -> dict[str, Any]:
        """What a checkpoint must hold for the epoch to go on with the same groups."""
        return {"fingerprint": self._retrieval.fingerprint} if self._retrieval else {}

    def resume(self, state: Mapping[str, Any], epoch: int) -> None:
        """Called with `resume_state` of the checkpoint when a run goes on in the middle of `epoch`."""
        self._resume = {**state, "epoch": epoch}


@TASKS.register()
class VideoRetriTask(RetriTask):
    """Retrieval by whole videos: items are (videos, clips, ...) and become (videos * clips, ...)."""

    def flatten(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """(B, m, K, ...) or (m, K, ...) -> (B*m*K, ...); rows are video-major, a video's clips sorted by
        time."""
        if (self.clips_per_video or 1) <= 1:
            return super().flatten(sample)
        leading = sample["caps"].dim() - 1  # all but the tokens
        return {
            name: value.flatten(0, min(leading, value.dim()) - 1)
            if isinstance(value, Tensor) and value.dim() >= 2
            else value
            for name, value in sample.items()
        }
