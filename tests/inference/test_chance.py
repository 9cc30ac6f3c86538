"""A similarity says how it compares with what sentences find that fit nothing."""

from __future__ import annotations

import numpy as np

from mmpt.inference.chance import Chance
from mmpt.inference.moments import MomentIndex

RNG = np.random.default_rng(0)
N, D = 400, 16


def asked(vectors, bank):
    index = MomentIndex(
        np.array([f"v{i}" for i in range(len(vectors))]), np.tile([0.0, 1.0], (len(vectors), 1)), vectors
    )
    return index, Chance.of(vectors, bank, index.search)


def test_queries_like_the_bank_are_as_confident_as_chance_has_it():
    vectors, bank, queries = (RNG.standard_normal((n, D)).astype(np.float32) for n in (N, 200, 1000))
    index, chance = asked(vectors, bank)
    found = np.array([chance.confidence(query, index.search(query, 1)[0].score) for query in queries])
    for level in (0.5, 0.8, 0.95):  # four standard deviations of bank and queries together
        assert abs((found >= level).mean() - (1 - level)) < 0.14, level


def test_a_moment_that_fits_is_told_from_the_best_of_chance_whatever_the_scale():
    vectors, bank = RNG.standard_normal((N, D)), RNG.standard_normal((200, D))
    for scale, shift in ((1, 0), (1000, 0), (1, 5)):
        moved = (scale * vectors + shift).astype(np.float32)
        index, chance = asked(moved, bank)
        query = 3 * vectors[7] / np.linalg.norm(vectors[7]) * 2
        best = index.search(query, 1)[0]
        assert best.video_id == "v7" and chance.confidence(query, best.score) > 0.95


def test_a_moment_that_every_sentence_finds_is_a_hub():
    vectors = RNG.standard_normal((N, D)).astype(np.float32)
    bank = (RNG.standard_normal((200, D)) + 2).astype(np.float32)
    vectors[3] = 4
    _, chance = asked(vectors, bank)
    assert chance.hubs[("v3", 0.0)] > 0.9


def test_moments_that_are_all_the_same_say_nothing():
    vectors = np.ones((5, D), np.float32)
    index, chance = asked(vectors, RNG.standard_normal((20, D)))
    assert chance.confidence(np.ones(D), index.search(np.ones(D), 1)[0].score) < 1 and not chance.hubs
