"""How far a number could move if other queries had been drawn: intervals and paired comparison of two
runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mmpt.evaluators.ranking import statistic

_BLOCK_ELEMENTS = 2**20
Statistic = Callable[[np.ndarray], np.ndarray]


def resamples(n_queries: int, n_samples: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Blocks (samples, n_queries) of query indices drawn with replacement."""
    block = max(1, _BLOCK_ELEMENTS // n_queries)
    for start in range(0, n_samples, block):
        yield generator.integers(n_queries, size=(min(block, n_samples - start), n_queries))


def interval(
    values: np.ndarray,
    of: Statistic,
    n_samples: int,
    generator: np.random.Generator,
    clusters: Sequence | None = None,
) -> tuple[float, float]:
    """95 % percentile interval of `of(values)` over resampled queries.

    Args:
        values: one number per query (a rank, a hit).
        of: statistic over the last axis.
        n_samples: bootstrap samples.
        generator: source of the draws.
        clusters: what each query belongs to (its video), which is then drawn as a whole; None: queries are.
    """
    if clusters is not None:
        draws = np.empty(n_samples)
        for rows, index in cluster_resamples(clusters, n_samples, generator):
            draws[rows] = of(values[index])
    else:
        draws = np.concatenate([of(values[index]) for index in resamples(len(values), n_samples, generator)])
    return bounds(draws)


def cluster_resamples(
    clusters: Sequence, n_samples: int, generator: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Query indices of samples that draw whole clusters with replacement: samples with as many queries come
    together, as their numbers (b) and their indices (b, queries)."""
    _, of_query, sizes = np.unique(np.asarray(clusters), return_inverse=True, return_counts=True)
    order, starts = of_query.argsort(kind="stable"), sizes.cumsum() - sizes
    drawn = np.concatenate(list(resamples(len(sizes), n_samples, generator)))
    lengths = sizes[drawn].sum(1)
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        many = sizes[drawn[rows]].ravel()  # queries of each cluster, sample after sample
        first = np.repeat(starts[drawn[rows]].ravel() - (many.cumsum() - many), many)
        yield rows, order[first + np.arange(len(first))].reshape(len(rows), length)


def bounds(draws: np.ndarray) -> tuple[float, float]:
    """95 % percentile interval of what was found in the samples."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def p_value(draws: np.ndarray) -> float:
    """Two-sided probability of zero: the smaller share of samples beside it, doubled, never below
    2 / (samples + 1)."""
    other_side = min((draws <= 0).sum(), (draws >= 0).sum())
    return float(min(1.0, 2 * (other_side + 1) / (len(draws) + 1)))


class PooledMean:
    """The mean over queries that do not weigh the same, per group, then over groups; called with query
    indices (..., n), gives (...).

    COIN's frame accuracy pools seconds of videos, recall on HTM-Align sentences of videos, CrossTask's recall
    steps of videos by task.

    Args:
        values: (N) one number per query.
        weights: (N) seconds, sentences, steps behind each; None: all the same.
        groups: (N) what each belongs to; None: all together.
    """

    def __init__(self, values: np.ndarray, weights: np.ndarray | None = None, groups: Sequence | None = None):
        values = np.asarray(values, dtype=np.float64)
        weights = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)
        names, group = np.unique(np.zeros(len(values)) if groups is None else groups, return_inverse=True)
        member = weights[:, None] * (group[:, None] == np.arange(len(names)))
        self.sums = np.concatenate([values[:, None] * member, member], axis=1)  # (N, 2 groups)

    def per_group(self, index: np.ndarray) -> np.ndarray:
        """(..., groups); NaN where the queries of a group weigh nothing."""
        found, total = np.split(times_drawn(index, len(self.sums)) @ self.sums, 2, axis=-1)
        return np.divide(found, total, out=np.full_like(found, np.nan), where=total > 0)

    def __call__(self, index: np.ndarray) -> np.ndarray:
        means = self.per_group(index)
        known = ~np.isnan(means)
        return np.where(known, means, 0.0).sum(-1) / np.maximum(known.sum(-1), 1)


def times_drawn(index: np.ndarray, n_queries: int) -> np.ndarray:
    """How often each query stands in each row of indices: (..., n) -> (..., n_queries) float64."""
    rows = index.reshape(-1, index.shape[-1])
    place = rows + n_queries * np.arange(len(rows))[:, None]
    counts = np.bincount(place.ravel(), minlength=len(rows) * n_queries)
    return counts.reshape(*index.shape[:-1], n_queries).astype(np.float64)


class PairedResult(NamedTuple):
    """Run B minus run A, its 95 % interval, and the two-sided probability of a difference this far from zero
    by draw of queries."""

    difference: float
    low: float
    high: float
    p: float


def paired_bootstrap(
    ranks_a: np.ndarray, ranks_b: np.ndarray, metric: str = "R1", n: int = 10_000, seed: int = 0
) -> PairedResult:
    """Compare two runs on the same queries: both are read at the same resampled queries, so their common
    difficulty cancels.

    Args:
        ranks_a: (N) ranks of run A.
        ranks_b: (N) ranks of run B, same queries in the same order.
        metric: `R<k>`, `MR`, or `mean` where the arrays hold hits instead of ranks.
        n: bootstrap samples.
        seed: seed of the draws.

    Returns:
        metric(B) - metric(A); p counts samples on the other side of zero, doubled, never below 2 / (n + 1).

    Raises:
        ValueError: the runs have different numbers of queries, or none.
    """
    ranks_a, ranks_b = np.asarray(ranks_a), np.asarray(ranks_b)
    if ranks_a.shape != ranks_b.shape or ranks_a.ndim != 1 or not len(ranks_a):
        raise ValueError(
            f"paired comparison needs the same queries in both runs, got ranks of shape {ranks_a.shape} "
            f"and {ranks_b.shape}."
        )
    of = statistic(metric)
    return paired_difference(
        lambda index: of(ranks_a[index]), lambda index: of(ranks_b[index]), len(ranks_a), n, seed
    )


def paired_difference(
    of_a: Statistic, of_b: Statistic, n_queries: int, n: int = 10_000, seed: int = 0
) -> PairedResult:
    """As `paired_bootstrap`, for any two statistics of query indices."""
    draws = np.concatenate(
        [of_b(index) - of_a(index) for index in resamples(n_queries, n, np.random.default_rng(seed))]
    )
    everyone = np.arange(n_queries)
    return PairedResult(float(of_b(everyone) - of_a(everyone)), *bounds(draws), p_value(draws))
