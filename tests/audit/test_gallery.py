import itertools

import numpy as np
import pytest

from mmpt.audit.gallery import at_size
from mmpt.audit.protocol import metric


def test_a_smaller_gallery_equals_the_mean_over_all_choices_of_competitors():
    n_items, n_then, rank = 8, 4, 3
    better = np.arange(n_items - 1) < rank - 1
    ranks_then = [
        1 + sum(better[i] for i in chosen)
        for chosen in itertools.combinations(range(n_items - 1), n_then - 1)
    ]
    for name in ("R1", "R2", "nDCG3"):
        of, _ = metric(name)
        found = at_size(np.array([float(rank)]), n_items, n_then, {name: metric(name)})[name]
        assert found[0] == pytest.approx(of(np.array(ranks_then)).mean())


def test_the_same_size_changes_nothing():
    ranks = np.array([1.0, 2.0, 5.0, 9.0])
    assert at_size(ranks, 20, 20, {"R5": metric("R5")})["R5"].tolist() == [1, 1, 1, 0]


def test_a_larger_gallery_is_predicted_from_a_part_of_it():
    generator = np.random.default_rng(0)
    chance = generator.beta(0.3, 12, size=2000)
    few = 1 + generator.binomial(399, chance)
    expected = {
        f"R{k}": np.mean([(1 - p) ** 599 if k == 1 else binomial_below(k, 599, p) for p in chance])
        for k in (1, 5)
    }
    found = at_size(few.astype(float), 400, 600, {name: metric(name) for name in expected})
    for name, value in expected.items():
        assert found[name].mean() == pytest.approx(
            value, abs=0.012
        )  # 2000 queries: one deviation is 0.5 to 1 point


def binomial_below(k, trials, p):
    term, total = (1 - p) ** trials, 0.0
    for j in range(k):
        total += term
        term *= (trials - j) / (j + 1) * p / (1 - p)
    return total


def test_a_half_rank_is_the_mean_of_its_neighbours():
    found = at_size(np.array([1.0, 1.5, 2.0]), 10, 5, {"R1": metric("R1")})["R1"]
    assert found[1] == pytest.approx((found[0] + found[2]) / 2)


@pytest.mark.parametrize("n_then", [20, 131, 353])
def test_a_value_never_exceeds_one_however_chances_round(n_then):
    ranks = np.random.default_rng(0).integers(1, 4, 500).astype(float)
    assert at_size(ranks, 500, n_then, {"R10": metric("R10")})["R10"].max() <= 1
