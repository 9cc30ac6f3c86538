"""Which items make which update: the same global batches in the same order on any number of processes.

Letters: n items, G items of a global batch, R processes, b items of a batch that passes the loss together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class DataPlan:
    """The global batches of every epoch, by (seed, epoch, number) alone.

    An epoch is a permutation of the items, cut into runs of G. The last run is filled from the start of the
    permutation, so that every update has one size.

    Args:
        items: n.
        global_batch: G.
        seed: with the epoch, seeds the permutation.

    Raises:
        ValueError: there are fewer items than one global batch takes.
    """

    items: int
    global_batch: int
    seed: int

    def __post_init__(self) -> None:
        if self.items < self.global_batch:
            raise ValueError(
                f"dataset.global_batch={self.global_batch} asks for more items than the {self.items} of the "
                f"training split. Use at most {self.items}."
            )

    def __len__(self) -> int:
        """Global batches of an epoch."""
        return -(-self.items // self.global_batch)

    def batches(self, epoch: int, shuffle: bool = True) -> np.ndarray:
        """(len(self), G) items of an epoch, one global batch a row."""
        order = np.arange(self.items)
        if shuffle:
            order = np.random.default_rng((self.seed, epoch)).permutation(self.items)
        return np.resize(order, len(self) * self.global_batch).reshape(len(self), self.global_batch)

    def share(
        self, epoch: int, rank: int, ranks: int, batch_size: int, shuffle: bool = True
    ) -> list[np.ndarray]:
        """The batches of one process, in order: G / (R b) of b items for every update.

        A process takes a run of each global batch, so that the runs of all processes, joined in the order of
        ranks, are the global batch itself.

        Args:
            epoch: from 1.
            rank: of the process, below `ranks`.
            ranks: R.
            batch_size: b; R b divides G.
            shuffle: false: the items in their own order.
        """
        runs = self.batches(epoch, shuffle).reshape(len(self), ranks, -1, batch_size)
        return list(runs[:, rank].reshape(-1, batch_size))
