"""MMDataset as fairseq's iterators want to see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from fairseq.data import FairseqDataset

from mmpt.datasets import MixedDataset, MMDataset
from mmpt.datasets.hand_over import pack


class FairseqMMDataset(FairseqDataset):
    """Wraps an MMDataset; an item depends on (seed, epoch, index) alone, never on the process or worker that
    draws it.

    Args:
        dataset: the items.
        equal_batches: fill the last batch from the start of the list, as training does: losses that join the
            batches of several processes need one size, and dropping the rest would always drop the same
            items.
        global_batch: items that are filled up to; None: those of one batch.
        index: entry of an item that is to hold its index; None: it has none.
    """

    def __init__(
        self,
        dataset: MMDataset | MixedDataset,
        equal_batches: bool = False,
        global_batch: int | None = None,
        index: str | None = None,
    ):
        super().__init__()
        self.dataset = dataset
        self.equal_batches = equal_batches
        self.global_batch = global_batch
        self.index = index

    def set_epoch(self, epoch: int) -> None:
        """Called by fairseq before the items of `epoch` are drawn."""
        self.dataset.set_epoch(epoch)

    def __getitem__(self, index: int) -> dict[str, Any]:
        # fairseq hands out numpy integers, which torch generators refuse
        item = self.dataset[int(index)]
        return item if self.index is None else {**item, self.index: int(index)}

    def __len__(self) -> int:
        return len(self.dataset)

    def collater(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Stack items; an empty list (a rank whose share ran out) stays empty, which fairseq replaces by a
        dummy batch."""
        return pack(self.dataset.collate(samples)) if len(samples) else {}

    def size(self, index: int) -> int:
        """Every item counts as one: batches are sized by `batch_size`, not by tokens."""
        return 1

    def num_tokens(self, index: int) -> int:
        """See `size`."""
        return 1

    def ordered_indices(self) -> np.ndarray:
        """Items in their own order; fairseq shuffles batches by (seed, epoch)."""
        return np.arange(len(self), dtype=np.int64)

    def batch_by_size(
        self,
        indices: np.ndarray,
        max_tokens: int | None = None,
        max_sentences: int | None = None,
        required_batch_size_multiple: int = 1,
    ) -> list[np.ndarray]:
        """Consecutive runs of `max_sentences` items; the last one is shorter where the items do not divide,
        or filled (`equal_batches`).

        fairseq's own routine drops the last item of a data set whose sizes come from a function.

        Several sets have batches of their own; see `MixturePlan`.

        Raises:
            ValueError: no batch size.
        """
        if isinstance(self.dataset, MixedDataset):
            return self.dataset.batches()
        if max_sentences is None:
            raise ValueError(
                "fairseq.dataset.batch_size is missing; batches are sized by it (max_tokens does not "
                "apply to videos)."
            )
        if self.equal_batches and len(indices) > max_sentences:
            size = self.global_batch or max_sentences
            indices = np.concatenate([indices, indices[: -len(indices) % size]])
        return [indices[start : start + max_sentences] for start in range(0, len(indices), max_sentences)]

    @property
    def can_reuse_epoch_itr_across_epochs(self) -> bool:
        """False: groups of videos are composed anew every epoch, so cached batch lists would be stale."""
        return False
