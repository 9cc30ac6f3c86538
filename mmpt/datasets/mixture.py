"""Several training sets in one run: every update reads one of them, drawn by weight.

Letters: S sets, R processes, u batches of a process in an update, b_s items of a batch of set s.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from mmpt.datasets.mmdataset import MMDataset

SET = "mixed_set"  # entry of items and batches: the name of the set they are from


@dataclass(frozen=True)
class MixturePlan:
    """Which set each update reads, and which of its items: the same whatever process asks.

    The set of an update is drawn with a probability proportional to its weight. A set is read in permutations
    of its own, one after the other; what of a permutation fills no update is left out.

    Args:
        items: number of items of each set.
        batch_sizes: b_s.
        weights: of the sets.
        seed: with epoch, or set and pass, seeds draws and permutations.
    """

    items: tuple[int, ...]
    batch_sizes: tuple[int, ...]
    weights: tuple[float, ...]
    seed: int

    def updates(self, ranks: int, update_freq: int = 1) -> int:
        """Updates of an epoch: as many as would read all sets once."""
        batches = sum(-(-n // size) for n, size in zip(self.items, self.batch_sizes, strict=True))
        return -(-batches // (ranks * update_freq))

    def sets(self, epoch: int, updates: int) -> np.ndarray:
        """(updates) set of each update of an epoch."""
        weights = np.asarray(self.weights, dtype=np.float64)
        rng = np.random.default_rng((self.seed, epoch))
        return rng.choice(len(weights), updates, p=weights / weights.sum())

    def share(self, epoch: int, rank: int, ranks: int, update_freq: int = 1) -> list[np.ndarray]:
        """The batches of one process in an epoch, u for each update; items count through the sets in order.

        Raises:
            ValueError: a set has fewer items than an update reads.
        """
        updates = self.updates(ranks, update_freq)
        chosen = self.sets(epoch, updates)
        before: np.ndarray = sum(
            (
                np.bincount(self.sets(earlier, updates), minlength=len(self.items))
                for earlier in range(1, epoch)
            ),
            np.zeros(len(self.items), dtype=np.int64),
        )
        found: list[list[np.ndarray]] = [[] for _ in chosen]
        for s, (n, size) in enumerate(zip(self.items, self.batch_sizes, strict=True)):
            whole = ranks * update_freq * size
            if n < whole:
                raise ValueError(f"set {s + 1} of the mixture has {n} items, and an update reads {whole}.")
            (places,) = np.nonzero(chosen == s)
            numbers, first = before[s] + np.arange(len(places)), sum(self.items[:s])
            for turn in np.unique(numbers // (n // whole)):
                order = first + np.random.default_rng((self.seed, s, turn)).permutation(n)
                parts = order[: n // whole * whole].reshape(-1, ranks, update_freq, size)[:, rank]
                for place, number in zip(places, numbers, strict=True):
                    if number // len(parts) == turn:
                        found[place] = list(parts[number % len(parts)])
        return list(itertools.chain.from_iterable(found))


class MixedDataset(Dataset):
    """Training sets side by side; an index counts through them in order, a batch is of one of them.

    Args:
        parts: the sets, by name.
        batch_sizes: items of a batch of each, on one process.
        weights: see `MixturePlan`.
    """

    def __init__(self, parts: Mapping[str, MMDataset], batch_sizes: Sequence[int], weights: Sequence[float]):
        self.parts, self.batch_sizes, self.weights = dict(parts), tuple(batch_sizes), tuple(weights)
        self._names = list(self.parts)
        self._starts = np.cumsum([0, *(len(part) for part in self.parts.values())])

    @property
    def seed(self) -> int:
        """Of all draws."""
        return next(iter(self.parts.values())).seed

    @seed.setter
    def seed(self, seed: int) -> None:
        for part in self.parts.values():
            part.seed = seed

    def plan(self) -> MixturePlan:
        """Which items make which update."""
        items = tuple(len(part) for part in self.parts.values())
        return MixturePlan(items, self.batch_sizes, self.weights, self.seed)

    def batches(self) -> list[np.ndarray]:
        """All items in their own order, in batches."""
        bounds = itertools.pairwise(self._starts)
        return [
            np.arange(at, min(at + size, end))
            for (start, end), size in zip(bounds, self.batch_sizes, strict=True)
            for at in range(start, end, size)
        ]

    def set_epoch(self, epoch: int) -> None:
        """Draw differently from now on."""
        for part in self.parts.values():
            part.set_epoch(epoch)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        s = int(np.searchsorted(self._starts, index, side="right")) - 1
        return {**self.parts[self._names[s]][index - int(self._starts[s])], SET: self._names[s]}

    def collate(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """A batch of items of one set, with its name."""
        name = items[0][SET]
        plain = [{key: value for key, value in item.items() if key != SET} for item in items]
        return {**self.parts[name].collate(plain), SET: name}
