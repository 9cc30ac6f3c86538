"""What a similarity is worth: a search always finds its best moments, also where nothing fits.

A bank of everyday sentences is asked of the same index. Query q and moment m are compared by

    (q - mean of the bank) . (m - mean of the moments) / |q - mean of the bank|

in which neither the scale of the model counts, nor what a query has in common with all sentences, nor how
close a moment is to any sentence. The share of the bank whose best moment is at least as good as one of a
query is a conformal p-value of "this query is one more sentence of that kind"; it assumes nothing about the
model. Moments that the bank finds again and again are hubs.

Letters: n moments, R sentences of the bank, k moments of an answer, D width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

VERBS = "cutting washing painting repairing carrying opening cleaning throwing folding filling".split()
THINGS = "a chair,an apple,a bicycle,a shirt,a box,a bottle,a window,a ball,a book,a plant,a fish,a wheel,"
THINGS += "a lamp,a carpet,a drum,a boat,a horse,a wall,a phone,a tree"
BANK = tuple(f"{verb} {thing}" for verb in VERBS for thing in THINGS.split(","))
HUB_TOP, HUB_SHARE = 10, 0.2
BLOCK = 1 << 16  # moments at a time


@dataclass(frozen=True)
class Chance:
    """What the bank finds in one index.

    Attributes:
        text_mean: (D,) of the bank.
        video_mean: (D,) of the moments.
        best: (R,) value of the best moment of each sentence of the bank, rising.
        hubs: row of a moment -> share of the bank that has it among its best ten.
    """

    text_mean: np.ndarray
    video_mean: np.ndarray
    best: np.ndarray
    hubs: dict[int, float]

    @classmethod
    def of(cls, vectors: np.ndarray, bank: np.ndarray) -> Chance:
        """Asks the bank, a block of moments at a time.

        Args:
            vectors: (n, D) moments.
            bank: (R, D) vectors of its sentences.
        """
        text_mean = bank.mean(0, dtype=np.float64)
        video_mean = sum(block.sum(0, dtype=np.float64) for _, block in _blocks(vectors)) / len(vectors)
        asked, best = _directions(bank, text_mean), np.full(len(bank), -np.inf)
        scores, rows = np.zeros((len(bank), 0)), np.zeros((len(bank), 0), int)
        for first, block in _blocks(vectors):
            best = np.maximum(best, ((block - video_mean) @ asked.T).max(0))
            scores = np.concatenate([scores, bank @ block.T], axis=1)
            here = np.broadcast_to(np.arange(first, first + len(block)), (len(bank), len(block)))
            rows = np.concatenate([rows, here], axis=1)
            top = np.argpartition(-scores, min(HUB_TOP, scores.shape[1]) - 1, axis=1)[:, :HUB_TOP]
            scores, rows = (np.take_along_axis(x, top, axis=1) for x in (scores, rows))
        found = Counter(rows.ravel().tolist())
        # of few moments each is often among the best
        many = len(vectors) > 2 * HUB_TOP / HUB_SHARE
        hubs = {
            row: times / len(bank) for row, times in found.items() if many and times >= HUB_SHARE * len(bank)
        }
        return cls(text_mean, video_mean, np.sort(best), hubs)

    def confidence(self, query: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """Share of the bank whose best moment is worse than each of these, in [0, 1); 1 minus it is a
        p-value.

        Args:
            query: (D,).
            vectors: (k, D) moments.
        """
        values = (vectors - self.video_mean) @ _directions(query[None], self.text_mean)[0]
        return np.searchsorted(self.best, values, side="left") / (len(self.best) + 1)


def _blocks(vectors: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for first in range(0, len(vectors), BLOCK):
        yield first, np.asarray(vectors[first : first + BLOCK], dtype=np.float32)


def _directions(queries: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Queries without what all sentences share, of length 1; (R, D) -> (R, D)."""
    own = queries - mean
    return own / np.maximum(np.linalg.norm(own, axis=1, keepdims=True), np.finfo(np.float32).tiny)
