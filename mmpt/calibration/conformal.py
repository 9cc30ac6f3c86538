"""Split-conformal quantiles and p-values over groups, numbers in, numbers out.

The sentences of one video resemble each other; videos are exchangeable, sentences are not. So every video
of the calibration weighs the same, whatever its number of sentences, and one more video, the one that is
asked about, may be anything. What is promised then holds for a sentence drawn at random from a video drawn at
random.

Sources: Vovk et al., Algorithmic Learning in a Random World, 2005 (split conformal); Lee, Barber, Willett,
"Distribution-free inference with hierarchical data", 2023, eq. 5 (groups); Bates et al., "Testing for
outliers with conformal p-values", Annals of Statistics 2023 (p-values with Benjamini-Hochberg).

Letters: n sentences, K videos.
"""

from __future__ import annotations

import numpy as np


def group_weights(groups: np.ndarray) -> np.ndarray:
    """(n,) weights that give each of the K groups 1 / (K + 1), shared by its members."""
    _, member, counts = np.unique(groups, return_inverse=True, return_counts=True)
    return 1.0 / ((len(counts) + 1) * counts[member])


def group_quantile(scores: np.ndarray, groups: np.ndarray, coverage: float) -> float:
    """The smallest number that a score of one more group stays below with probability `coverage` at least.

    Args:
        scores: (n,) of the calibration; great where a prediction was far off.
        groups: (n,) whose each is.
        coverage: in (0, 1).

    Returns:
        Infinity where there are too few groups: with K of them, coverage beyond K / (K + 1) takes anything.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage={coverage}: expected a share between 0 and 1, such as 0.9.")
    order = np.argsort(scores, kind="stable")
    mass = np.cumsum(group_weights(np.asarray(groups))[order])
    place = int(np.searchsorted(mass, coverage - 1e-12))
    return float(scores[order[place]]) if place < len(order) else float("inf")


def group_p_values(nulls: np.ndarray, groups: np.ndarray, values: np.ndarray) -> np.ndarray:
    """For each value, how likely one at least as great is where the null hypothesis holds.

    Args:
        nulls: (n,) values of the calibration for which it held.
        groups: (n,) whose each is.
        values: any shape.
    """
    order = np.argsort(nulls, kind="stable")
    weights = group_weights(np.asarray(groups))[order]
    beyond = np.append(np.cumsum(weights[::-1])[::-1], 0.0)  # mass of the nulls from each place on
    rest = 1.0 / (len(np.unique(groups)) + 1)
    return beyond[np.searchsorted(nulls[order], values, side="left")] + rest


def discoveries(p_values: np.ndarray, rate: float) -> np.ndarray:
    """Benjamini-Hochberg: which hypotheses to reject so that false ones among them are `rate` at most, on
    average.

    Args:
        p_values: (n,), of hypotheses that are decided together.
        rate: in (0, 1).
    """
    n = len(p_values)
    order = np.argsort(p_values, kind="stable")
    passed = np.flatnonzero(p_values[order] <= rate * np.arange(1, n + 1) / max(n, 1))
    rejected = np.zeros(n, dtype=bool)
    if len(passed):
        rejected[order[: passed[-1] + 1]] = True
    return rejected
