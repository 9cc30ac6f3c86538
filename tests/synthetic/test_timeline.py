import dataclasses
import itertools

import numpy as np

from mmpt.synthetic.parts import Step
from mmpt.synthetic.settings import NOISE
from mmpt.synthetic.timeline import EDGE_S, GAP_S, STEP_S, lay_out, vary

STEPS = tuple(Step(i, i, 0, False) for i in range(8))
STEADY = dataclasses.replace(NOISE["moderate"], p_dropped=0.0, p_repeated=0.0, p_exchanged=0.0)


def test_steps_edges_and_gaps_stay_in_their_ranges():
    rng = np.random.default_rng(0)
    for _ in range(50):
        segments, length = lay_out(STEPS, rng)
        edges = [segments[0].start_s, length - segments[-1].end_s]
        gaps = [b.start_s - a.end_s for a, b in itertools.pairwise(segments)]
        for values, (low, high) in (
            (edges, EDGE_S),
            (gaps, GAP_S),
            ([s.end_s - s.start_s for s in segments], STEP_S),
        ):
            assert low <= min(values) and max(values) <= high


def test_without_variation_a_video_follows_its_task():
    assert vary(STEPS, STEADY, np.random.default_rng(0)) == STEPS


def test_dropping_leaves_out_steps_but_never_all():
    rng = np.random.default_rng(0)
    kept = [len(vary(STEPS, dataclasses.replace(STEADY, p_dropped=0.5), rng)) for _ in range(400)]
    assert abs(np.mean(kept) - 4) < 0.3
    assert len(vary(STEPS, dataclasses.replace(STEADY, p_dropped=1.0), rng)) == 1


def test_repeating_shows_one_step_twice_in_a_row():
    steps = vary(STEPS, dataclasses.replace(STEADY, p_repeated=1.0), np.random.default_rng(0))
    assert len(steps) == 9 and sum(a == b for a, b in itertools.pairwise(steps)) == 1


def test_exchanging_moves_two_neighbours():
    rng = np.random.default_rng(0)
    moved = set()
    for _ in range(100):
        steps = vary(STEPS, dataclasses.replace(STEADY, p_exchanged=1.0), rng)
        assert sorted(steps) == sorted(STEPS)
        moved.add(tuple(i for i, (a, b) in enumerate(zip(steps, STEPS, strict=True)) if a != b))
    assert moved == {(i, i + 1) for i in range(len(STEPS) - 1)}
