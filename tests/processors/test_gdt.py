from dataclasses import replace

import numpy as np
import pytest
import torch

from mmpt.processors import GDTAligner
from mmpt.utils import ItemRandom
from tests.processors.helpers import CONFIG, SPECIAL

ALL_VIEWS = ["orig", "rev", "shift", "shiftrev"]
TEXT = {
    "start": np.arange(40) * 4.0,
    "end": np.arange(40) * 4.0 + 3.5,
    "cap": [[20 + i, 21 + i, 60 + i % 7] for i in range(40)],
}
VIDEO = np.repeat(np.arange(160, dtype=np.float32)[:, None], 4, axis=1)


def item_of(views, seed=0, video=VIDEO, text=TEXT, **changes):
    config = replace(CONFIG, clip_per_video=None, views=views, subsampling=len(views), **changes)
    return GDTAligner(config, SPECIAL)("v", video, text, ItemRandom(seed))


@pytest.mark.parametrize("seed", range(5))
def test_reversed_views_flip_features_and_words_and_leave_padding_and_special_tokens(seed):
    item = item_of(ALL_VIEWS, seed)
    for row in (0, 2):
        n, words = int(item["vmasks"][row].sum()), int(item["cmasks"][row].sum()) - 3
        assert (
            torch.equal(item["vfeats"][row + 1, :n], item["vfeats"][row, :n].flip(0))
            and (item["vfeats"][row + 1, n:] == 0).all()
        )
        assert torch.equal(item["caps"][row + 1, 2 : 2 + words], item["caps"][row, 2 : 2 + words].flip(0))
        assert torch.equal(item["caps"][row + 1, 2 + words :], item["caps"][row, 2 + words :])
        assert item["caps"][row + 1, :2].tolist() == [1, 2]
        assert torch.equal(item["vmasks"][row], item["vmasks"][row + 1]) and torch.equal(
            item["cmasks"][row], item["cmasks"][row + 1]
        )


def test_text_can_be_left_as_it_is():
    item = item_of(["orig", "rev"], text_reversal="none")
    assert torch.equal(item["caps"][0], item["caps"][1]) and not torch.equal(
        item["vfeats"][0], item["vfeats"][1]
    )


@pytest.mark.parametrize("seed", range(5))
def test_captions_can_change_places_and_keep_their_words(seed):
    item = item_of(["orig", "rev"], seed, text_reversal="sentence")
    n_words = int(item["cmasks"][0].sum()) - 3
    numbers = range(int(item["text_start"][0]), int(item["text_end"][0]))
    words, expected = item["caps"][0, 2 : 2 + n_words].tolist(), []
    for ids in (TEXT["cap"][i] for i in numbers):  # the last ones may be cut
        expected.insert(0, words[: len(ids)])
        words = words[len(ids) :]
    assert item["caps"][1, 2 : 2 + n_words].tolist() == [token for ids in expected for token in ids]
    assert item["view_valid"].tolist() == [True, len([ids for ids in expected if ids]) > 1]
    assert torch.equal(item["caps"][1, 2 + n_words :], item["caps"][0, 2 + n_words :])


def test_a_single_caption_has_no_reversed_order():
    text = {"start": np.array([0.0]), "end": np.array([5.0]), "cap": [[20, 21, 22]]}
    item = item_of(["orig", "rev"], text=text, video=VIDEO[:8], text_reversal="sentence")
    assert item["view_valid"].tolist() == [True, False] and torch.equal(*item["caps"])


def test_shifted_clips_start_far_enough_away():
    for seed in range(20):
        item = item_of(["orig", "shift"], seed, min_shift=10)
        assert abs(item["video_start"][1] - item["video_start"][0]) >= 10 and item["view_valid"].all()


def test_a_video_too_short_to_shift_says_so():
    text = {"start": np.array([0.0]), "end": np.array([1.0]), "cap": [[20]]}
    item = item_of(ALL_VIEWS, video=VIDEO[:1], text=text)
    assert item["view_valid"].tolist() == [True, True, False, False]


def test_the_first_clip_is_any_of_the_video():
    assert len({int(item_of(["orig", "shift"], seed)["video_start"][0] > 80) for seed in range(12)}) == 2


def test_one_view_is_a_plain_item():
    item = item_of(["orig"])
    assert item["caps"].shape == (32,) and item["vfeats"].shape == (16, 4) and item["view_valid"]


def test_the_same_streams_give_the_same_item():
    first, second = item_of(ALL_VIEWS, 3), item_of(ALL_VIEWS, 3)
    assert all(torch.equal(first[key], second[key]) for key in first if key != "video_id")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"views": ["rev", "orig"]}, "dataset.views"),
        ({"views": None}, "dataset.views"),
        ({"views": ["orig"], "subsampling": 4}, "dataset.subsampling"),
        ({"views": ["orig"], "reversal": "precomputed"}, "ModalityViewAligner"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        GDTAligner(replace(CONFIG, clip_per_video=None, **changes), SPECIAL)
