import dataclasses

import numpy as np

from mmpt.synthetic.features import draw_features
from mmpt.synthetic.parts import stream
from mmpt.synthetic.settings import NOISE

QUIET = dataclasses.replace(
    NOISE["moderate"],
    visible_verb=1,
    visible_object=1,
    visible_third=1,
    w_who=0,
    w_where=0,
    w_drift=0,
    w_noise=1e-3,
    w_pair=0,
)


def draw(world, noise, video=None):
    video = video or world.video("train", 0)
    return draw_features(video, world.looks, noise, stream(0, "test")).astype(np.float64)


def test_features_are_unit_vectors_in_half_precision(world):
    video = world.video("test", 0)
    features = world.features(video)
    assert features.dtype == np.float16 and features.shape == (video.length_s, 512)
    np.testing.assert_allclose(np.linalg.norm(features.astype(np.float64), axis=1), 1, atol=2e-3)


def test_without_noise_a_second_is_the_weighted_sum_of_its_parts(world):
    segment = world.video("train", 0).segments[0]
    expected = (
        world.looks.verbs[segment.step.verb]
        + world.looks.objects[segment.step.obj]
        + 0.8 * world.looks.third(segment.step)
    )
    seconds = draw(world, QUIET)[segment.start_s : segment.end_s]
    np.testing.assert_allclose(seconds @ (expected / np.linalg.norm(expected)), 1, atol=1e-2)


def test_parts_are_visible_as_often_as_said(world):
    noise = dataclasses.replace(QUIET, visible_verb=0.5, w_object=0, w_third=0, p_scenery=0)
    hits = []
    for video in world.videos("train"):
        features = draw_features(video, world.looks, noise, stream(0, "test", video.index)).astype(np.float64)
        hits += [features[s.start_s : s.end_s] @ world.looks.verbs[s.step.verb] > 0.9 for s in video.segments]
    assert abs(np.concatenate(hits).mean() - 0.5) < 0.03


def test_without_step_terms_features_say_nothing_of_the_steps(world):
    noise = dataclasses.replace(NOISE["moderate"], w_verb=0, w_object=0, w_third=0, w_pair=0)
    video = world.video("train", 0)
    features = draw(world, noise)
    own = [features[s.start_s : s.end_s].mean(0) @ world.looks.verbs[s.step.verb] for s in video.segments]
    assert abs(np.mean(own)) < 0.05


def test_background_shows_scenery_in_its_share_of_seconds(world):
    hits = []
    for video in world.videos("train"):
        features = draw_features(video, world.looks, QUIET, stream(0, "test", video.index)).astype(np.float64)
        background = np.ones(video.length_s, dtype=bool)
        for s in video.segments:
            background[s.start_s : s.end_s] = False
        hits.append((features[background] @ world.looks.scenery.T).max(1) > 0.9)
    assert abs(np.concatenate(hits).mean() - 0.7) < 0.05


def test_person_and_place_are_new_in_every_video(world):
    noise = dataclasses.replace(QUIET, w_verb=0, w_object=0, w_third=0, p_scenery=0, w_who=1)
    first, second = (
        draw_features(world.video("train", i), world.looks, noise, stream(0, "test", i)).astype(np.float64)
        for i in (0, 1)
    )
    assert (first @ first.T).min() > 0.95 and abs(first @ second.T).max() < 0.3


def test_drift_is_slow(world):
    noise = dataclasses.replace(QUIET, w_verb=0, w_object=0, w_third=0, p_scenery=0, w_drift=1)
    features = draw(world, noise)
    assert (features[:-1] * features[1:]).sum(1).min() > 0.9 and abs(features[0] @ features[-1]) < 0.3
