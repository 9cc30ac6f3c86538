"""The pairs of clip and caption that a training set draws, for what is measured or fitted before training."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import Tensor

from mmpt.datasets.mmdataset import MMDataset

TRAILING = {"caps": 1, "cmasks": 1, "vfeats": 2, "vmasks": 1}  # dimensions of one clip


def training_pairs(dataset: MMDataset, most: int = 20_000, epochs: int = 1) -> Iterator[dict[str, Tensor]]:
    """Batches caps, cmasks (B, T), vfeats (B, F, D), vmasks (B, F), as training draws them, row i of one
    beside row i of the other.

    Items are drawn from all over the list, in an order that the data set's seed decides.

    Args:
        dataset: of the training split; its epoch is left at the last one drawn.
        most: pairs, after which nothing more is drawn.
        epochs: how often each item is drawn, anew each time.
    """
    order, pairs = np.random.default_rng(dataset.seed).permutation(len(dataset)), 0
    for epoch in range(1, epochs + 1):
        dataset.set_epoch(epoch)
        for index in order.tolist():
            item = dataset[index]
            batch = {name: item[name].reshape(-1, *item[name].shape[-n:]) for name, n in TRAILING.items()}
            candidates = len(batch["caps"]) // len(batch["vfeats"])
            if candidates > 1:  # captions of one clip, as MIL-NCE has them
                for name in ("vfeats", "vmasks"):
                    batch[name] = batch[name].repeat_interleave(candidates, 0)
            yield batch
            pairs += len(batch["caps"])
            if pairs >= most:
                return
