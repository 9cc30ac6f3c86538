"""What a similarity is worth: a search always finds its best moments, also where nothing fits.

A bank of everyday sentences is asked of the same index. For each, similarities are read in standard
deviations from the sentence's own mean over all moments, and the best one is kept. The share of the bank
whose best moment is at least as good as a query's is a conformal p-value of "this query is one more sentence
of that kind"; it assumes nothing about the model. Moments that the bank finds again and again are hubs.

Letters: n moments, R sentences of the bank, D width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mmpt.inference.moments import Moment

VERBS = "cutting washing painting repairing carrying opening cleaning throwing folding filling".split()
THINGS = "a chair,an apple,a bicycle,a shirt,a box,a bottle,a window,a ball,a book,a plant,a fish,a wheel,"
THINGS += "a lamp,a carpet,a drum,a boat,a horse,a wall,a phone,a tree"
BANK = tuple(f"{verb} {thing}" for verb in VERBS for thing in THINGS.split(","))
HUB_TOP, HUB_SHARE = 10, 0.2


@dataclass(frozen=True)
class Chance:
    """The bank's best moments in one index.

    Attributes:
        mean: (D,) mean vector of the moments.
        covariance: (D, D) of the moments.
        best: (R,) best standardised similarity of each sentence of the bank, rising.
        hubs: (video id, start) -> share of the bank that has it among its best ten.
    """

    mean: np.ndarray
    covariance: np.ndarray
    best: np.ndarray
    hubs: dict[tuple[str, float], float]

    @classmethod
    def of(
        cls, vectors: np.ndarray, bank: np.ndarray, search: Callable[[np.ndarray, int], Sequence[Moment]]
    ) -> Chance:
        """Asks the bank.

        Args:
            vectors: (n, D) moments, or an even sample of them.
            bank: (R, D) vectors of its sentences.
            search: query (D,), k -> the k best moments, with their dot products as scores.
        """
        sample = np.asarray(vectors, dtype=np.float64)
        mean = sample.mean(0)
        covariance = (sample - mean).T @ (sample - mean) / len(sample)
        chance, best, seen = cls(mean, covariance, np.zeros(0), {}), [], Counter()
        for query in bank:
            found = search(query, HUB_TOP)
            best.append(chance.standardised(query, found[0].score))
            seen.update((moment.video_id, moment.start_s) for moment in found)
        # every moment is among the ten best where there are few
        places = len(sample) > 2 * HUB_TOP
        hubs = {
            key: count / len(bank) for key, count in seen.items() if places and count >= HUB_SHARE * len(bank)
        }
        return cls(mean, covariance, np.sort(best), hubs)

    def standardised(self, query: np.ndarray, score: float) -> float:
        """Standard deviations that a score lies above the query's mean over all moments."""
        wide = np.asarray(query, dtype=np.float64)
        spread = float(np.sqrt(max(wide @ self.covariance @ wide, 0.0)))
        return (score - float(wide @ self.mean)) / spread if spread > 0 else 0.0

    def confidence(self, query: np.ndarray, score: float) -> float:
        """Share of the bank whose best moment is worse than this one, in [0, 1); 1 minus it is a p-value."""
        worse = int(np.searchsorted(self.best, self.standardised(query, score), side="left"))
        return worse / (len(self.best) + 1)
