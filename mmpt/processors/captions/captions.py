"""Timed captions of one video as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Captions:
    """n captions, in order of time, of one video or of several laid end to end.

    Attributes:
        start_s, end_s: (n,) float64 seconds.
        words: (total words,) int64 token ids of all captions.
        offsets: (n + 1,) caption i is words[offsets[i]:offsets[i + 1]].
    """

    start_s: np.ndarray
    end_s: np.ndarray
    words: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, feature: Mapping[str, Any]) -> Captions:
        """From what text processors return: {"start": (n,), "end": (n,), "cap": n lists of ids or an (n,
        columns) array padded with -1}."""
        cap = feature["cap"]
        if isinstance(cap, np.ndarray):
            valid = cap >= 0
            words, counts = cap[valid], valid.sum(1)
        else:
            words = np.array([token for ids in cap for token in ids], dtype=np.int64)
            counts = np.array([len(ids) for ids in cap], dtype=np.int64)
        start_s, end_s = (
            np.asarray(feature["start"], dtype=np.float64),
            np.asarray(feature["end"], dtype=np.float64),
        )
        if not len(start_s) == len(end_s) == len(counts):
            raise ValueError(
                f"captions with {len(start_s)} starts, {len(end_s)} ends and {len(counts)} texts; "
                "expected as many of each."
            )
        return cls(start_s, end_s, words, _offsets(counts))

    @classmethod
    def join(cls, parts: Sequence[Captions]) -> Captions:
        """The captions of several videos, one video after the other."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            np.concatenate([part.start_s for part in parts]),
            np.concatenate([part.end_s for part in parts]),
            np.concatenate([part.words for part in parts]),
            _offsets(np.concatenate([part.counts for part in parts])),
        )

    def __len__(self) -> int:
        return len(self.start_s)

    @property
    def counts(self) -> np.ndarray:
        """Words per caption, (n,)."""
        return np.diff(self.offsets)

    def until(self, seconds: float) -> Captions:
        """Without the captions after the last one that starts before `seconds`: the features end there."""
        begun = np.flatnonzero(self.start_s < seconds)
        n = int(begun[-1]) + 1 if len(begun) else 0
        if n == len(self):
            return self
        return Captions(
            self.start_s[:n], self.end_s[:n], self.words[: self.offsets[n]], self.offsets[: n + 1]
        )

    def in_order(self) -> Captions:
        """By their start, without those whose times cannot be: NaN, or an end before the start."""
        possible = np.flatnonzero(self.end_s >= self.start_s)
        order = possible[np.argsort(self.start_s[possible], kind="stable")]
        if len(order) == len(self) and (np.diff(order) == 1).all():
            return self
        words = [self.words[self.offsets[i] : self.offsets[i + 1]] for i in order.tolist()]
        joined = np.concatenate(words) if words else self.words[:0]
        return Captions(self.start_s[order], self.end_s[order], joined, _offsets(self.counts[order]))

    def first_wrong(self, base: np.ndarray) -> int:
        """The first caption that ends before it starts, starts before the one before it, or has NaN for a
        time; -1 where all are right.

        Args:
            base: (m + 1,) first caption of each of the m videos.
        """
        steps = np.diff(self.start_s)
        steps[base[1:-1] - 1] = 0  # from one video to the next
        lasting = self.end_s - self.start_s
        if steps.min(initial=0) >= 0 and lasting.min(initial=0) >= 0:  # false of NaN
            return -1
        right = (lasting >= 0) & np.concatenate([[True], steps >= 0])
        return int(np.argmin(right))

    def ids(self, index: int) -> list[int]:
        """Token ids of one caption."""
        return self.words[self.offsets[index] : self.offsets[index + 1]].tolist()


def _offsets(counts: np.ndarray) -> np.ndarray:
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets
