import dataclasses
import itertools

import numpy as np
import pytest

from mmpt.synthetic import narration
from mmpt.synthetic.narration import caption, narrate, word_list
from mmpt.synthetic.parts import OBJECTS, TOOLS, VERBS, Step, stream
from mmpt.synthetic.settings import NOISE, Noise

SILENT_NOISE = Noise(
    p_chatter=0, p_silent=0, p_follow=0, p_tool_named=1, offset_s=0, p_word=0, p_filler=0, p_false_start=0
)


def told(world, **knobs):
    """All sentences of the training videos, each told five times under some knobs, with its video."""
    noise = dataclasses.replace(SILENT_NOISE, **knobs)
    return [
        (v, s)
        for take in range(5)
        for v in world.videos("train")
        for s in narrate(v, noise, stream(0, "test", v.index, take))
    ]


def touches(video, sentence):
    segment = video.segments[sentence.step]
    return sentence.start_s < segment.end_s and sentence.end_s > segment.start_s


def test_without_noise_every_step_is_told_once_inside_its_seconds(world):
    for video in world.videos("train"):
        sentences = narrate(video, SILENT_NOISE, stream(0, "test", video.index))
        assert [s.step for s in sentences] == list(range(len(video.segments)))
        assert all(touches(video, s) for s in sentences)


def test_times_lie_in_the_video_and_rise(world):
    for video in world.videos("train"):
        sentences = narrate(video, NOISE["heavy"], stream(0, "test", video.index))
        assert sentences and all(0 <= s.start_s < s.end_s <= video.length_s for s in sentences)
        assert [s.start_s for s in sentences] == sorted(s.start_s for s in sentences)


def test_silence_leaves_one_sentence_of_chatter(world):
    sentences = told(world, p_silent=1.0)
    assert len(sentences) == 5 * world.count("train") and all(s.step == -1 for _, s in sentences)


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_chatter_has_its_share(world, share):
    steps = [s.step for _, s in told(world, p_chatter=share)]
    assert abs(np.mean(np.array(steps) < 0) - share) < 0.02


def test_misleading_chatter_names_parts(world):
    plain = {s.text for _, s in told(world, p_chatter=0.5, p_misleading=0.0) if s.step < 0}
    assert plain <= set(narration.CHATTER)
    assert not {s.text for _, s in told(world, p_chatter=0.5, p_misleading=1.0) if s.step < 0} & set(
        narration.CHATTER
    )


def test_offsets_move_sentences_away_from_their_steps(world):
    shares = [
        np.mean([touches(v, s) for v, s in told(world, offset_s=offset)]) for offset in (0.0, 4.0, 15.0)
    ]
    assert shares[0] == 1.0 > shares[1] > shares[2] + 0.2


def test_follow_ups_come_after_and_belong_to_the_step(world):
    video = world.video("train", 0)
    noise = dataclasses.replace(SILENT_NOISE, p_follow=1.0)
    steps = [s.step for s in narrate(video, noise, stream(0, "test", 0))]
    assert sorted(steps) == sorted(2 * list(range(len(video.segments))))


def test_word_noise_fillers_and_false_starts_change_the_length(world):
    mean_words = {
        name: np.mean([len(s.text.split()) for _, s in told(world, **knobs)])
        for name, knobs in {
            "none": {},
            "filler": {"p_filler": 0.2},
            "false start": {"p_false_start": 1.0},
            "word": {"p_word": 0.4},
        }.items()
    }
    assert mean_words["filler"] > mean_words["none"] + 1
    assert abs(mean_words["false start"] - mean_words["none"] - 2) < 0.2
    assert 0.7 < mean_words["word"] / mean_words["none"] < 0.9


def test_a_caption_names_all_three_parts():
    rng = np.random.default_rng(0)
    for step in (Step(0, 1, 2, False), Step(3, 4, 5, True)):
        for _ in range(30):
            text = f" {caption(step, rng)} "
            for names in (
                VERBS[step.verb],
                OBJECTS[step.obj],
                (OBJECTS if step.partner else TOOLS)[step.third],
            ):
                assert any(f" {name} " in text for name in names), text


def test_no_caption_fits_a_step_and_its_role_swapped_twin():
    for first, second in itertools.product(narration.WITH_PARTNER, repeat=2):
        swapped = second.replace("O", "#").replace("P", "O").replace("#", "P")
        assert first != swapped, (first, second)


def test_both_orders_of_the_two_ingredients_occur():
    orders = {template.index("O") < template.index("P") for template in narration.WITH_PARTNER}
    assert orders == {True, False}
    assert all(template.count(slot) == 1 for template in narration.WITH_PARTNER for slot in "VOP")


def test_there_are_about_as_many_words_as_a_small_vocabulary_holds():
    words = word_list()
    assert 250 < len(words) < 400 and all(word.isalpha() and word.islower() for word in words)
