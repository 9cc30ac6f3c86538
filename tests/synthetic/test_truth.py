import json

import numpy as np
import pytest

from mmpt.synthetic.truth import truth_alignment


def test_the_truth_knows_every_video_and_its_segments(world, root):
    videos = json.loads((root / "truth.json").read_text())
    assert len(videos) == sum(world.count(split) for split in ("train", "val", "labelled", "test"))
    for split in ("train", "val", "labelled", "test"):
        for video in world.videos(split):
            shown = [(step["start_s"], step["end_s"], step["label"]) for step in videos[video.id]["steps"]]
            assert shown == [(s.start_s, s.end_s, s.step.label()) for s in video.segments]


def test_captions_carry_their_step_or_none(world, root):
    video = world.video("train", 3)
    truth = truth_alignment(root, video.id)
    sentences = world.narration(video)
    assert truth.captions == [s.text for s in sentences] and truth.caption_step.tolist() == [
        s.step for s in sentences
    ]
    assert (truth.caption_step == -1).any() and (truth.caption_step >= 0).any()


def test_test_videos_are_told_step_by_step(world, root):
    truth = truth_alignment(root, "test00000")
    np.testing.assert_array_equal(truth.matrix(), np.eye(len(truth.labels)))
    np.testing.assert_array_equal(truth.spoken_s, truth.shown_s)


def test_the_matrix_tells_how_much_of_a_span_shows_the_step(root):
    truth = truth_alignment(root, "train00000")
    caption = int(np.flatnonzero(truth.caption_step >= 0)[0])
    start, end = truth.shown_s[truth.caption_step[caption]]
    spans = [(start, end), (start - 2, start), (start, start + 2), (start - 1, start + 1)]
    np.testing.assert_allclose(truth.matrix(spans)[caption], [1, 0, 1, 0.5])
    assert not truth.matrix()[truth.caption_step == -1].any()


def test_an_unknown_video_is_named(root):
    with pytest.raises(KeyError, match="no video 'train99999'"):
        truth_alignment(root, "train99999")
