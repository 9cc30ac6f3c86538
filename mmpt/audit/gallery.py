"""Recall at another size of the gallery, from the ranks at this one.

A rank r among M items says that r - 1 of M - 1 others score higher. With fewer items drawn at random from
the same list, how many of these stay is hypergeometric. With more, each further item scores higher with a
chance p that differs by query; the spread of p over the queries is estimated by maximum likelihood (a
mixture of binomials, without assuming its form), and a query's own p from its rank.

Letters: Q queries, M items now, m items then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

_CHANCES = np.concatenate([[0.0], 1 / (1 + np.exp(-np.linspace(-12, 6, 120)))])
_STEPS = 60  # stopped early, the mixture stays smooth; 1000 steps predict no better

_BINNED_FROM = (
    30  # ranks beyond are grouped for the estimate of the mixture: none of them is near a recall's edge
)

OfPlace = Callable[[np.ndarray], np.ndarray]  # value of a metric at integer ranks


def at_size(
    ranks: np.ndarray, n_items: int, n_then: int, metrics: Mapping[str, tuple[OfPlace, int]]
) -> dict[str, np.ndarray]:
    """Expected value of each metric for each query in a gallery of `n_then` items.

    Args:
        ranks: (Q) from 1; a half is the mean of its neighbours.
        n_items: M.
        n_then: m, with the query's own item among them.
        metrics: name -> value at a rank, and the last rank that has one.

    Returns:
        (Q) of each metric.

    Source for the mixture: Laird, "Nonparametric maximum likelihood estimation of a mixing distribution",
    JASA 1978.
    """
    below, above = np.floor(ranks).astype(int), np.ceil(ranks).astype(int)
    places, inverse = np.unique(np.concatenate([below, above]), return_inverse=True)
    deepest = max(last for _, last in metrics.values())
    reach = (_fewer if n_then <= n_items else _more)(places, np.bincount(inverse), n_items, n_then, deepest)
    found = {}
    for name, (of, last) in metrics.items():
        worth = reach[:, :last] @ of(np.arange(1, last + 1))
        # chances are exponentials of differences of large logarithms, and may add up to a little over 1
        found[name] = ((worth[inverse[: len(ranks)]] + worth[inverse[len(ranks) :]]) / 2).clip(0.0, 1.0)
    return found


def _fewer(places: np.ndarray, times: np.ndarray, n_items: int, n_then: int, deepest: int) -> np.ndarray:
    """(places, deepest): chance of each new rank, j + 1 if j of r - 1 better items are among the m - 1 kept
    of M - 1."""
    better: np.ndarray = (places - 1)[:, None]
    worse: np.ndarray = (n_items - places)[:, None]
    kept = np.arange(deepest)
    return np.exp(
        _log_choose(better, kept)
        + _log_choose(worse, n_then - 1 - kept)
        - _log_choose(n_items - 1, n_then - 1)
    )


def _more(places: np.ndarray, times: np.ndarray, n_items: int, n_then: int, deepest: int) -> np.ndarray:
    """(places, deepest): chance of each new rank, r + e if e of the m - M further items are better, over
    what r says of p."""
    known = places[places <= deepest]
    further = np.exp(_log_binomial(np.arange(deepest), n_then - n_items))  # (e, chances)
    likelihood = _scaled(_log_binomial(known - 1, n_items - 1))
    share = likelihood * _mixture(places, times, n_items)
    share /= share.sum(1, keepdims=True)
    found = np.zeros((len(places), deepest))
    for row, place in enumerate(known):
        found[row, place - 1 :] = further[: deepest - place + 1] @ share[row]
    return found


def _mixture(places: np.ndarray, times: np.ndarray, n_items: int) -> np.ndarray:
    """Weights of _CHANCES over the queries, by expectation maximisation."""
    edges = np.unique(
        np.concatenate(
            [np.arange(1, _BINNED_FROM), np.geomspace(_BINNED_FROM, max(n_items, _BINNED_FROM + 1), 40)]
        )
    )
    group = np.searchsorted(edges, places, side="right") - 1
    total = np.bincount(group, times)
    middle = np.bincount(group, times * places)[total > 0] / total[total > 0]
    total = total[total > 0]
    likelihood = _scaled(_log_binomial(np.round(middle).astype(int) - 1, n_items - 1))
    weights = np.full(len(_CHANCES), 1 / len(_CHANCES))
    for _ in range(_STEPS):
        share = likelihood * weights
        weights = (total / share.sum(1)) @ share / total.sum()
    return weights


def _scaled(logs: np.ndarray) -> np.ndarray:
    return np.exp(logs - logs.max(1, keepdims=True))


def _log_binomial(successes: np.ndarray, trials: int) -> np.ndarray:
    """(successes, chances) log probability."""
    k: np.ndarray = successes[:, None].astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        ways = _log_choose(trials, k) + np.where(k > 0, k * np.log(_CHANCES), 0.0)
    return ways + np.where(trials - k > 0, (trials - k) * np.log1p(-_CHANCES), 0.0)


def _log_choose(n, k) -> np.ndarray:
    """-inf where no choice exists."""
    n, k = np.broadcast_arrays(np.asarray(n, dtype=float), np.asarray(k, dtype=float))
    possible = (k >= 0) & (k <= n)
    n, k = np.where(possible, n, 0), np.where(possible, k, 0)
    return np.where(possible, _LOG_GAMMA(n + 1) - _LOG_GAMMA(k + 1) - _LOG_GAMMA(n - k + 1), -np.inf)


_LOG_GAMMA = np.vectorize(math.lgamma, otypes=[float])
