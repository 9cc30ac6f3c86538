from dataclasses import replace

import numpy as np
import pytest
import torch

from mmpt.config import DatasetConfig
from mmpt.processors import MissingData, ModalityViewAligner
from mmpt.processors.modalities.modalities import Item
from mmpt.utils.seed import ItemRandom
from tests.processors.helpers import SPECIAL

CONFIG = DatasetConfig(
    split="train",
    max_video_len=4,
    max_len=12,
    on_missing="drop",
    views=["orig", "rev", "shift", "shiftrev"],
    subsampling=4,
    modalities={
        "video": {"path": "x", "width": 1, "max_len": 4},
        "audio": {"path": "y", "width": 1, "rate": 2, "max_len": 8},
    },
)
TEXT = {"captions": [[5, 6]], "subtitle": []}


def item(seconds, seed=0, config=CONFIG):
    features = {
        name: np.arange(rate * seconds, dtype=np.float32)[:, None] / rate + 1
        for name, rate in (("video", 1), ("audio", 2))
    }
    return ModalityViewAligner(config, SPECIAL)(
        Item("v", "v", None, ("a",), ""), features, TEXT, ItemRandom(seed)
    )


def test_all_streams_show_the_same_seconds_in_every_view():
    for seed in range(20):
        views = item(30, seed)
        video, audio = views["video_feats"][..., 0], views["audio_feats"][..., 0]
        for view in (0, 2):
            assert (video[view].diff() == 1).all() and (audio[view].diff() == 0.5).all()
            assert abs(video[view, 0] - audio[view, 0]) <= 1  # whole vectors of either rate


def test_reversed_views_are_flipped():
    views = item(30)
    for name in ("video_feats", "audio_feats"):
        torch.testing.assert_close(views[name][1], views[name][0].flip(0))
        torch.testing.assert_close(views[name][3], views[name][2].flip(0))


def test_the_shifted_window_keeps_its_distance_wherever_there_is_room():
    starts = np.array([[item(30, seed)["video_feats"][view, 0, 0] for view in (0, 2)] for seed in range(60)])
    distance = np.abs(starts[:, 0] - starts[:, 1])
    assert distance.min() >= 3 and distance.max() > 10  # four seconds, cut to whole vectors
    assert set(np.sign(starts[:, 0] - starts[:, 1])) == {-1, 1}


def test_a_short_item_is_shifted_as_far_as_it_allows():
    for seed in range(20):
        views = item(6, seed)
        assert views["view_valid"].all() and views["video_feats"][2, 0, 0] in (1, 3)


def test_an_item_of_one_window_has_no_shifted_view():
    views = item(3)
    assert views["view_valid"].tolist() == [True, True, False, False]
    assert views["video_masks"].sum(1).tolist() == [3] * 4 and views["video_feats"][1, :, 0].tolist() == [
        3,
        2,
        1,
        0,
    ]


def test_one_view_has_no_axis_of_views():
    assert item(30, config=replace(CONFIG, views=["orig"], subsampling=None))["video_feats"].shape == (4, 1)


@pytest.mark.parametrize(
    "change, match",
    [
        ({"views": ["rev"]}, "orig first"),
        ({"subsampling": 2}, "use that number"),
        ({"on_missing": "mask"}, "on_missing: drop"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(change, match):
    with pytest.raises(ValueError, match=match):
        ModalityViewAligner(replace(CONFIG, **change), SPECIAL)


def test_reversed_views_can_come_from_frames_played_backwards():
    def view(config, seconds=12, seed=3, spoil=False):
        features = {
            name: np.arange(rate * seconds, dtype=np.float32)[:, None] / rate + 1
            for name, rate in (("video", 1), ("audio", 2))
        }
        backwards = {f"{name}_rev": 1000 + feature[::-1] for name, feature in features.items()}
        if spoil:
            backwards["audio_rev"] = None
        return ModalityViewAligner(config, SPECIAL)(
            Item("v", "v", None, ("a",), ""), {**features, **backwards}, TEXT, ItemRandom(seed)
        )

    plain, backwards = view(CONFIG), view(replace(CONFIG, reversal="precomputed"))
    for name in ("video_feats", "audio_feats"):
        torch.testing.assert_close(backwards[name][[0, 2]], plain[name][[0, 2]])
        torch.testing.assert_close(
            backwards[name][[1, 3]], plain[name][[1, 3]] + 1000
        )  # the same seconds, in reversed order
    with pytest.raises(MissingData, match="_rev.npy of audio is not there"):
        view(replace(CONFIG, reversal="precomputed"), spoil=True)
