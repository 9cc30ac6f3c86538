"""Intervals and the paired test: coverage, seeds, closed forms."""

import numpy as np
import pytest

from mmpt.evaluators.bootstrap import (
    PooledMean,
    cluster_resamples,
    interval,
    paired_bootstrap,
    paired_difference,
    times_drawn,
)
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


def slow_pooled_mean(values, weights, groups, index):
    means = []
    for group in set(groups.tolist()):
        members = [i for i in index if groups[i] == group]
        total = sum(weights[i] for i in members)
        means += [sum(values[i] * weights[i] for i in members) / total] if total else []
    return sum(means) / len(means)


def test_a_pooled_mean_of_resampled_queries_is_that_of_a_loop():
    rng = np.random.default_rng(0)
    values, weights, groups = rng.random(9), rng.integers(0, 4, 9), np.array(list("aabbbcccd"))
    weights[-1] = 0  # a group that weighs nothing is left out
    index = rng.integers(9, size=(20, 9))
    expected = [slow_pooled_mean(values, weights, groups, row) for row in index]
    np.testing.assert_allclose(PooledMean(values, weights, groups)(index), expected)


def test_groups_that_weigh_nothing_are_left_out_without_a_warning(recwarn):
    index = np.array([[0, 0], [1, 1], [0, 1]])
    assert PooledMean([0.5, 0.25], [1, 0], ["a", "b"])(index).tolist() == [0.5, 0, 0.5] and not recwarn.list


def test_without_weights_and_groups_it_is_the_mean():
    values = np.random.default_rng(0).random(7)
    assert PooledMean(values)(np.arange(7)) == pytest.approx(values.mean())


def test_draws_are_counted_per_row():
    assert times_drawn(np.array([[0, 0, 2], [1, 2, 1]]), 3).tolist() == [[2, 0, 1], [0, 2, 1]]


def test_two_statistics_of_indices_are_compared_on_the_same_draws():
    values = np.random.default_rng(0).random(50)
    result = paired_difference(PooledMean(values), PooledMean(values + 0.25), 50, 100)
    assert result.low == pytest.approx(0.25) and result.high == pytest.approx(0.25) and result.p < 0.03


@pytest.mark.parametrize(("n_queries", "n_clusters"), [(40, 9), (7, 7), (5, 1)])
def test_samples_of_clusters_hold_whole_clusters_as_a_plain_loop_draws_them(n_queries, n_clusters):
    generator = np.random.default_rng(1)
    clusters = [f"video{i}" for i in generator.integers(n_clusters, size=n_queries)]
    names = sorted(set(clusters))
    queries = [[i for i, own in enumerate(clusters) if own == name] for name in names]
    drawn = np.random.default_rng(2).integers(len(names), size=(50, len(names)))
    expected = [[i for cluster in sample for i in queries[cluster]] for sample in drawn]
    found = {}
    for rows, index in cluster_resamples(clusters, 50, np.random.default_rng(2)):
        found |= dict(zip(rows.tolist(), index.tolist(), strict=True))
    assert [found[number] for number in range(50)] == expected


def test_an_interval_over_clusters_is_wider_where_their_queries_agree():
    hits = np.repeat([0.0, 1.0], 50)
    clusters = np.repeat(np.arange(10), 10)
    widths = [
        np.diff(interval(hits, statistic("mean"), 500, np.random.default_rng(0), of))[0]
        for of in (None, clusters)
    ]
    assert widths[1] > 2 * widths[0]
