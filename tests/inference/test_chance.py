"""A similarity says how it compares with what sentences find that fit nothing."""

from __future__ import annotations

import numpy as np
import pytest

from mmpt.inference import chance as module
from mmpt.inference.chance import Chance

N, D, R = 400, 16, 200


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def best_of(chance, vectors, queries):
    return np.array([chance.confidence(query, vectors).max() for query in queries])


@pytest.mark.parametrize("n", [5, N])
def test_queries_like_the_bank_are_as_confident_as_chance_has_it(n, rng):
    shared = 3 * rng.standard_normal(D)  # what all sentences have in common
    vectors, bank, queries = (rng.standard_normal((count, D)) for count in (n, R, 2000))
    bank, queries = (x + shared for x in (bank, queries))
    found = best_of(Chance.of(vectors, bank), vectors, queries)
    for level in (0.5, 0.8, 0.95):  # four standard deviations of bank and queries together
        assert abs((found >= level).mean() - (1 - level)) < 0.15, level


@pytest.mark.parametrize("n", [5, N])
def test_a_moment_that_fits_stands_out_whatever_scale_and_origin_the_model_has(n, rng):
    vectors, bank = rng.standard_normal((n, D)), rng.standard_normal((R, D))
    query = 2 * vectors[3]
    for scale, shift in ((1, 0), (1000, 0), (1, 5)):
        moved = scale * vectors + shift
        worth = Chance.of(moved, bank).confidence(query, moved)
        assert worth.argmax() == 3 and worth[3] > 0.95


def test_a_moment_that_every_sentence_finds_is_a_hub_and_no_answer(rng):
    vectors, bank = rng.standard_normal((N, D)), rng.standard_normal((R, D)) + 2
    vectors[3] = 4
    chance = Chance.of(vectors, bank)
    assert chance.hubs[3] > 0.9
    others = rng.standard_normal((50, D)) + 2
    assert np.mean([chance.confidence(query, vectors[3:4])[0] > 0.9 for query in others]) < 0.5


def test_blocks_change_nothing(rng, monkeypatch):
    vectors, bank = rng.standard_normal((N, D)).astype(np.float32), rng.standard_normal((R, D))
    vectors[7] += 3
    whole = Chance.of(vectors, bank)
    monkeypatch.setattr(module, "BLOCK", 37)
    parts = Chance.of(vectors, bank)
    np.testing.assert_allclose(parts.best, whole.best)
    assert parts.hubs == whole.hubs


def test_moments_that_are_all_the_same_say_nothing(rng):
    vectors = np.ones((5, D))
    chance = Chance.of(vectors, rng.standard_normal((20, D)))
    assert chance.confidence(np.ones(D), vectors).max() < 1 and not chance.hubs
