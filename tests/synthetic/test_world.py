import hashlib
import subprocess
import sys

import numpy as np
import pytest

from mmpt.synthetic.settings import NOISE, SIZES, Settings
from mmpt.synthetic.world import LOOK_ALIKES, World

DIGEST = """
import hashlib
from mmpt.synthetic.settings import SIZES, Settings
from mmpt.synthetic.world import World
world = World(Settings(size=SIZES["tiny"]))
video = world.video("train", 17)
print(hashlib.sha256(world.features(video).tobytes() + repr(world.narration(video)).encode()).hexdigest())
"""


def pairs(videos):
    """(verb, ingredient) pairs in either role."""
    steps = {segment.step for video in videos for segment in video.segments}
    return {(s.verb, s.obj) for s in steps} | {(s.verb, s.third) for s in steps if s.partner}


def test_a_video_is_the_same_in_another_process_and_order(world):
    list(world.videos("test"))
    video = world.video("train", 17)
    here = hashlib.sha256(world.features(video).tobytes() + repr(world.narration(video)).encode()).hexdigest()
    there = subprocess.run(
        [sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert here == there


def test_another_seed_is_another_world(world):
    other = World(Settings(size=SIZES["tiny"], seed=1))
    assert (other.held_out != world.held_out).any() and other.video("train", 0).segments != world.video(
        "train", 0
    ).segments


def test_narration_noise_leaves_timelines_and_features_alone(world):
    heavy = World(Settings(size=SIZES["tiny"], noise=NOISE["heavy"]))
    for split in ("train", "test"):
        assert heavy.video(split, 3).segments == world.video(split, 3).segments
        assert (heavy.features(heavy.video(split, 3)) == world.features(world.video(split, 3))).all()
    assert heavy.narration(heavy.video("train", 3)) != world.narration(world.video("train", 3))


def test_more_training_videos_leave_the_test_set_alone(world):
    more = World(Settings().with_knobs({**vars(SIZES["tiny"]), "train_videos": 60, "tasks": 20}))
    assert more.test_plans == world.test_plans


def test_no_test_pair_is_seen_in_training_in_either_role(world):
    training = pairs(video for split in ("train", "val", "labelled") for video in world.videos(split))
    assert not training & pairs(world.videos("test"))


def test_every_verb_and_ingredient_remains_in_training(world):
    assert (~world.held_out).any(0).all() and (~world.held_out).any(1).all()
    assert abs(world.held_out.mean() - 0.2) < 0.04


def test_tasks_and_test_videos_have_distinct_pairs(world):
    for steps in (
        *world.tasks,
        *(plan.steps for plan in world.test_plans if plan.kind in ("base", "single")),
    ):
        assert len({(s.verb, s.obj) for s in steps}) == len(steps)
    assert all(8 <= len(task) <= 13 for task in world.tasks)
    assert all(6 <= len(plan.steps) <= 10 for plan in world.test_plans)


def test_a_group_holds_each_look_alike_once(world):
    for group in range(world.settings.size.test_groups):
        plans = {plan.kind: plan.steps for plan in world.test_plans if plan.group == group}
        assert tuple(plans) == LOOK_ALIKES
        base = plans["base"]
        different = {
            kind: sum(a != b for a, b in zip(base, steps, strict=True)) for kind, steps in plans.items()
        }
        assert different["exchanged"] == 2 and different["replaced"] == 1 and different["permuted"] >= 2
        assert (
            sorted(plans["permuted"]) == sorted(base) == sorted(plans["exchanged"])
            and plans["permuted"] != plans["exchanged"]
        )
        assert plans["swapped"] == tuple(step.swapped() for step in base) != base


@pytest.mark.parametrize("latest", [False, True])
def test_the_clip_gallery_shows_each_step_once_and_twins_first(world, latest):
    gallery = world.gallery(latest)
    steps = [clip.step for clip in gallery]
    twins = [step.partner and step.swapped() in steps for step in steps]
    assert len(steps) == len(set(steps)) <= world.settings.size.max_gallery
    assert sum(twins) >= 10 and twins == sorted(twins, reverse=True)


def test_the_two_galleries_ask_about_different_footage(world):
    first, last = ({(c.video.id, c.index) for c in world.gallery(latest)} for latest in (False, True))
    assert len(first - last) > 10


def test_the_share_of_sentences_that_touch_their_step_falls_from_clean_to_heavy():
    shares = []
    for noise in NOISE.values():
        world = World(Settings(size=SIZES["tiny"], noise=noise))
        hits = [
            sentence.start_s < video.segments[sentence.step].end_s
            and sentence.end_s > video.segments[sentence.step].start_s
            for video in world.videos("train")
            for sentence in world.narration(video)
            if sentence.step >= 0
        ]
        shares.append(np.mean(hits))
    np.testing.assert_allclose(shares, [0.95, 0.8, 0.47], atol=0.06)
