"""Split-conformal quantiles and p-values over groups, numbers in, numbers out.

The sentences of one video resemble each other; videos are exchangeable, sentences are not. So every video of
the calibration weighs the same, whatever its number of sentences, and one more video, the one that is asked
about, may be anything. What is promised then holds for a sentence drawn at random from a video drawn at
random.

Sources: Vovk et al., Algorithmic Learning in a Random World, 2005 (split conformal); Lee, Barber, Willett,
"Distribution-free inference with hierarchical data", 2023 (groups); Bates et al., "Testing for outliers with
conformal p-values", Annals of Statistics 2023 (p-values with Benjamini-Hochberg).

Letters: n sentences, K videos.
"""

from __future__ import annotations

import numpy as np

RATES = 50  # that are tried


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


def group_p_values(
    nulls: np.ndarray, groups: np.ndarray, values: np.ndarray, own: np.ndarray | None = None
) -> np.ndarray:
    """For each value, how likely one at least as great is where the null hypothesis holds.

    Args:
        nulls: (n,) values of the calibration for which it held.
        groups: (n,) whose each is.
        values: (m,).
        own: (m,) groups of the values, where they are of the calibration themselves: each is then compared
            with the other groups alone.
    """
    names, member, counts = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(nulls, kind="stable")
    # how many groups' worth of nulls lie from each place on
    beyond: np.ndarray = np.append(np.cumsum((1.0 / counts[member])[order][::-1])[::-1], 0.0)
    total = beyond[np.searchsorted(nulls[order], values, side="left")]
    others = np.full(len(values), float(len(names)))
    for number, name in enumerate(names) if own is not None else ():
        mine = np.flatnonzero(own == name)
        total[mine] -= (nulls[member == number][None] >= values[mine][:, None]).mean(1)
        others[mine] -= 1
    return (total + 1) / (others + 1)


def adjusted(p_values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Benjamini-Hochberg within each group: the smallest rate at which a hypothesis is rejected.

    Args:
        p_values: (n,).
        groups: (n,) hypotheses that are decided together.
    """
    found = np.empty(len(p_values))
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        order = members[np.argsort(p_values[members], kind="stable")]
        rates = p_values[order] * len(order) / np.arange(1, len(order) + 1)
        found[order] = np.minimum.accumulate(rates[::-1])[::-1]
    return found


def risk_controlled_rate(
    rates: np.ndarray, null: np.ndarray, groups: np.ndarray, false_discovery: float
) -> float:
    """The rate at which the share of false discoveries in a group, on average, stays below a bound.

    Sentences of a video compete for its windows, so their p-values depend on each other, and
    Benjamini-Hochberg may exceed, or waste, what it is given. Here the rate is the largest one at which the
    mean over the groups of the calibration, with one more group in which all discoveries are false, keeps to
    the bound.

    Args:
        rates: (n,) of the hypotheses, see `adjusted`.
        null: (n,) bool, where the hypothesis holds.
        groups: (n,) whose each is.
        false_discovery: the bound.

    Source: Angelopoulos et al., "Conformal risk control", ICLR 2024.
    """
    _, member = np.unique(groups, return_inverse=True)
    tried = np.unique(np.concatenate([np.linspace(0, 1, RATES + 1)[1:], [false_discovery]]))
    called = rates[:, None] <= tried  # (n, rates)
    counts, false = np.zeros((2, member.max() + 1, len(tried)))
    np.add.at(counts, member, called)
    np.add.at(false, member, called & null[:, None])
    risk = ((false / np.maximum(counts, 1)).sum(0) + 1) / (len(counts) + 1)
    beyond = np.flatnonzero(risk > false_discovery)
    allowed = tried[: beyond[0]] if len(beyond) else tried
    return float(allowed[-1]) if len(allowed) else 0.0
