import dataclasses

import numpy as np

from mmpt.synthetic.parts import stream
from mmpt.synthetic.settings import NOISE
from mmpt.synthetic.sound import draw_sound

QUIET = dataclasses.replace(
    NOISE["moderate"], p_no_sound=0, audible_verb=1, audible_tool=1, w_room=0, w_hiss=1e-3
)


def draw(world, noise, index=0):
    return draw_sound(world.video("train", index), world.sounds, noise, stream(0, "test", index))


def test_a_second_without_noise_is_the_weighted_sum_of_verb_and_tool(world):
    sound = draw(world, QUIET).astype(np.float64)
    for segment in world.video("train", 0).segments:
        expected = world.sounds.verbs[segment.step.verb].astype(np.float64)
        if not segment.step.partner:
            expected = expected + 0.8 * world.sounds.tools[segment.step.third]
        np.testing.assert_allclose(
            sound[segment.start_s : segment.end_s] @ expected / np.linalg.norm(expected), 1, atol=1e-2
        )


def test_there_is_one_vector_per_second_of_video_in_half_precision(world):
    sound = draw(world, QUIET)
    assert sound.dtype == np.float16 and sound.shape == (world.video("train", 0).length_s, 128)


def test_sound_tracks_are_missing_in_their_share_of_videos(world):
    noise = dataclasses.replace(QUIET, p_no_sound=0.3)
    missing = np.mean([draw(world, noise, index) is None for index in range(48)])
    assert 0.1 < missing < 0.5


def test_the_room_is_another_in_every_video(world):
    noise = dataclasses.replace(QUIET, audible_verb=0, audible_tool=0, w_room=1)
    first, second = (draw(world, noise, index).astype(np.float64) for index in (0, 1))
    assert (first @ first.T).min() > 0.95 and abs(first @ second.T).max() < 0.5


def test_knobs_of_the_sound_leave_sights_and_speech_alone(world):
    video = world.video("train", 0)
    deaf = dataclasses.replace(world.settings.noise, p_no_sound=1, w_hiss=5)
    other = type(world)(dataclasses.replace(world.settings, noise=deaf))
    np.testing.assert_array_equal(other.features(video), world.features(video))
    assert other.narration(video) == world.narration(video) and other.sound(video) is None
