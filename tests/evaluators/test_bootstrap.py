"""Intervals and the paired test: coverage, seeds, closed forms."""

import numpy as np
import pytest

from mmpt.evaluators.bootstrap import interval, paired_bootstrap
from mmpt.evaluators.ranking import statistic


def test_the_interval_of_a_share_has_the_binomial_width():
    hits = np.repeat([0.0, 1.0], [700, 300])
    low, high = interval(hits, statistic("mean"), 2000, np.random.default_rng(0))
    half = 1.96 * np.sqrt(0.3 * 0.7 / 1000)
    assert low == pytest.approx(0.3 - half, abs=0.004) and high == pytest.approx(0.3 + half, abs=0.004)


def test_the_same_seed_gives_the_same_interval():
    ranks = np.arange(1, 200)
    one, two = (interval(ranks, statistic("MR"), 100, np.random.default_rng(3)) for _ in range(2))
    assert one == two


def test_a_run_does_not_differ_from_itself():
    ranks = np.random.default_rng(0).integers(1, 50, 300)
    assert paired_bootstrap(ranks, ranks, "R5") == (0.0, 0.0, 0.0, 1.0)


def test_swapping_the_runs_changes_the_sign_alone():
    rng = np.random.default_rng(0)
    a, b = rng.integers(1, 10, 400), rng.integers(1, 12, 400)
    one, two = paired_bootstrap(a, b, "R5", n=500), paired_bootstrap(b, a, "R5", n=500)
    assert one.difference == -two.difference and one.low == pytest.approx(-two.high) and one.p == two.p


def test_a_clear_improvement_is_significant_and_noise_is_not():
    rng = np.random.default_rng(1)
    a = rng.integers(1, 20, 500)
    assert paired_bootstrap(a, np.maximum(a - 3, 1), "R1", n=1000).p < 0.01
    assert paired_bootstrap(a, rng.permutation(a), "R1", n=1000).p > 0.05


def test_runs_of_different_length_are_refused():
    with pytest.raises(ValueError, match="same queries"):
        paired_bootstrap(np.ones(3), np.ones(4))


def test_an_unknown_statistic_is_refused():
    with pytest.raises(ValueError, match="R<k>"):
        statistic("Q7")
