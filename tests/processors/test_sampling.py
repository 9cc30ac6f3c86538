import random
from collections import Counter, defaultdict

import numpy as np
import pytest

from mmpt.processors import Captions, TextClipSamplingProcessor, VideoClipSamplingProcessor
from mmpt.processors.sampling import text_ranges, video_ranges
from tests.conftest import golden_cases

DRAWS = 40_000


def captions(counts, seconds=4.0):
    n = len(counts)
    start = np.arange(n) * seconds
    return Captions.of({"start": start, "end": start + seconds, "cap": [[7] * count for count in counts]})


def numbered(golden, prefix):
    return [j for j in range(1000) if f"{prefix}{j}" in golden]


@pytest.mark.parametrize("path", golden_cases("norton_data*.npz"))
def test_golden_norton_data_clip_sampler_replays_pythons_random(golden):
    for j in numbered(golden, "clip_sampler"):
        rng = random.Random(int(golden["seed"]) + j)
        got = TextClipSamplingProcessor(20)(Captions.of(golden["text"]), rng, max_len=[None, 8, 15][j % 3])
        assert got == golden[f"clip_sampler{j}"].tolist()


@pytest.mark.parametrize("path", golden_cases("norton_data*.npz"))
def test_golden_norton_data_clip_sampler_keep_skips_the_same_captions(golden):
    for j in numbered(golden, "clip_sampler_keep"):
        rng = random.Random(int(golden["seed"]) + j)
        got = TextClipSamplingProcessor(40, keep_prob=0.6)(Captions.of(golden["text"]), rng, centre=j % 14)
        assert got == golden[f"clip_sampler_keep{j}"].tolist()


@pytest.mark.parametrize("path", golden_cases("norton_data*.npz"))
def test_golden_norton_data_video_sampler_replays_pythons_random(golden):
    for j in numbered(golden, "video_sampler"):
        rng = random.Random(int(golden["seed"]) + j)
        got = VideoClipSamplingProcessor()(64, [3, 10, 40, 80][j % 4], [0, 5, 33, 63][j % 4], rng)
        assert list(got) == golden[f"video_sampler{j}"].tolist()


def exact_video_law(length, budget, centre):
    """Probability of each (start, end), walking all coins."""
    law, states = defaultdict(float), {(centre, centre): 1.0}
    while states:
        following = defaultdict(float)
        for (start, end), p in states.items():
            if end - start == min(budget, length):
                law[start, end] += p
            elif start == 0:
                following[start, end + 1] += p
            elif end == length:
                following[start - 1, end] += p
            else:
                following[start, end + 1] += p / 2
                following[start - 1, end] += p / 2
        states = following
    return law


def assert_follows(law, drawn):
    counts = Counter(drawn)
    assert set(counts) <= set(law)
    for outcome, p in law.items():
        assert abs(counts[outcome] / DRAWS - p) < 5 * np.sqrt(p * (1 - p) / DRAWS) + 1e-9, outcome


@pytest.mark.parametrize(
    ("length", "budget", "centre"),
    [(30, 6, 15), (30, 6, 0), (30, 6, 2), (30, 6, 29), (30, 6, 26), (9, 8, 4), (5, 16, 2), (1, 3, 0)],
)
def test_video_ranges_follow_the_walks_law_also_near_the_ends(length, budget, centre):
    columns = [np.full(DRAWS, value) for value in (length, budget, centre)]
    start, end = video_ranges(*columns, np.random.default_rng(0))
    assert_follows(exact_video_law(length, budget, centre), zip(start.tolist(), end.tolist(), strict=True))


def exact_text_law(counts, budget, centre, seconds):
    law, states = defaultdict(float), {(centre, centre + 1): 1.0}
    while states:
        following = defaultdict(float)
        for (first, behind), p in states.items():
            left, right = first > 0, behind < len(counts)
            if (
                not (left or right)
                or sum(counts[first:behind]) >= budget
                or (behind - first) * seconds >= 256
            ):
                law[first, behind] += p
                continue
            if right:
                following[first, behind + 1] += p / 2 if left else p
            if left:
                following[first - 1, behind] += p / 2 if right else p
        states = following
    return law


@pytest.mark.parametrize(
    ("counts", "budget", "centre", "seconds"),
    [
        ([3, 1, 4, 1, 5, 9, 2, 6], 12, 3, 4.0),
        ([3, 1, 4, 1, 5, 9, 2, 6], 12, 0, 4.0),
        ([0, 0, 0, 2], 9, 1, 4.0),
        ([2] * 9, 99, 4, 60.0),
        ([5], 9, 0, 4.0),
    ],
)
def test_text_ranges_follow_the_walks_law(counts, budget, centre, seconds):
    lowest, highest, centres, budgets = (np.full(DRAWS, value) for value in (0, len(counts), centre, budget))
    first, behind = text_ranges(
        captions(counts, seconds), lowest, highest, centres, budgets, np.random.default_rng(1)
    )
    assert_follows(
        exact_text_law(counts, budget, centre, seconds), zip(first.tolist(), behind.tolist(), strict=True)
    )


def test_the_replaying_samplers_follow_the_same_laws():
    rng, counts = random.Random(0), [3, 1, 4, 1, 5]
    sampler, own = TextClipSamplingProcessor(8), captions(counts)
    chosen = [sampler(own, rng, centre=2) for _ in range(DRAWS // 4)]
    law, drawn = exact_text_law(counts, 8, 2, 4.0), Counter((clip[0], clip[-1] + 1) for clip in chosen)
    assert all(abs(drawn[outcome] / len(chosen) - p) < 0.03 for outcome, p in law.items())


def test_text_ranges_stay_inside_their_video():
    joined = Captions.join([captions([2] * 5), captions([2] * 3)])
    video = np.tile([0, 1], 500)
    lowest, highest = np.array([0, 5])[video], np.array([5, 8])[video]
    first, behind = text_ranges(
        joined, lowest, highest, lowest + 1, np.full(1000, 99), np.random.default_rng(0)
    )
    np.testing.assert_array_equal(first, lowest)
    np.testing.assert_array_equal(behind, highest)
