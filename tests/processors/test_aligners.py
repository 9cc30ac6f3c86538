from dataclasses import replace

import numpy as np
import pytest
import torch

from mmpt.processors import (
    Aligner,
    FixedLenAligner,
    How2MILNCEAligner,
    MissingData,
    OverlappedAligner,
    StartClipAligner,
    VariedLenAligner,
    VideoRetriAligner,
    VideoRetriOverlappedAligner,
)
from mmpt.processors.base import pack_videos
from mmpt.utils import ItemRandom
from tests.conftest import golden_cases
from tests.processors.helpers import CONFIG, SPECIAL
from tests.processors.items import TEXT, VIDEO, assert_matches

REPLAY = replace(CONFIG, sampler="python")


GOLDEN_ALIGNERS = {
    "aligner_fixed": (FixedLenAligner, True),
    "aligner_varied": (VariedLenAligner, True),
    "aligner_overlapped": (OverlappedAligner, True),
    "videoclip_aligner_overlapped_nosort": (OverlappedAligner, False),
    "videoclip_aligner_startclip": (StartClipAligner, False),
}


@pytest.mark.parametrize("group", GOLDEN_ALIGNERS)
@pytest.mark.parametrize("path", golden_cases("norton_data*.npz"))
def test_golden_norton_data_aligner_replays_the_historic_draws(golden, group):
    aligner_cls, sort_clips = GOLDEN_ALIGNERS[group]
    aligner = aligner_cls(replace(REPLAY, sort_clips=sort_clips), SPECIAL)
    assert_matches(
        golden, group, aligner("v", golden["video_feature"], golden["text"], ItemRandom(golden["seed"]))
    )


@pytest.mark.parametrize("path", golden_cases("norton_data*.npz"))
def test_golden_norton_data_retri_aligner_draws_video_after_video(golden):
    video = golden["video_feature"]
    item = VideoRetriOverlappedAligner(REPLAY, SPECIAL)(
        ["a", "b"], [video, video[:40]], [golden["text"]] * 2, ItemRandom(golden["seed"])
    )
    assert_matches(golden, "retri_aligner", item)


@pytest.mark.parametrize("path", golden_cases("norton_data*.npz"))
def test_golden_norton_data_milnce_aligner_takes_four_candidates(golden):
    item = How2MILNCEAligner(REPLAY, SPECIAL)(
        "v", golden["video_feature"], golden["text"], ItemRandom(golden["seed"])
    )
    assert_matches(golden, "milnce_aligner", item)


ALL = [FixedLenAligner, VariedLenAligner, StartClipAligner, OverlappedAligner]


@pytest.mark.parametrize("sampler", ["generator", "python"])
@pytest.mark.parametrize("aligner_cls", ALL)
def test_every_clip_holds_exactly_its_captions_and_its_seconds(aligner_cls, sampler):
    item = aligner_cls(replace(CONFIG, sampler=sampler, clip_per_video=40), SPECIAL)(
        "v", VIDEO, TEXT, ItemRandom(3)
    )
    for k in range(40):
        words = [token for ids in TEXT["cap"][item["text_start"][k] : item["text_end"][k]] for token in ids][
            :29
        ]
        assert item["caps"][k].tolist() == [1, 2, *words, 2] + [0] * (32 - 3 - len(words))
        assert item["cmasks"][k].sum() == len(words) + 3
        seconds = list(range(item["video_start"][k], item["video_end"][k]))[:16]
        assert item["vfeats"][k, :, 0].tolist() == seconds + [0] * (16 - len(seconds))
        assert item["vmasks"][k].sum() == len(seconds) > 0


@pytest.mark.parametrize("aligner_cls", ALL)
def test_the_two_samplers_draw_clips_of_the_same_mean_size_and_place(aligner_cls):
    means = []
    for sampler in ("generator", "python"):
        item = aligner_cls(replace(CONFIG, sampler=sampler, clip_per_video=2000), SPECIAL)(
            "v", VIDEO, TEXT, ItemRandom(0)
        )
        means.append(
            [
                item[key].double().mean().item()
                for key in ("text_start", "text_end", "video_start", "video_end", "cmasks", "vmasks")
            ]
        )
    np.testing.assert_allclose(*means, atol=1.0, rtol=0.06)


@pytest.mark.parametrize("sampler", ["generator", "python"])
def test_clips_of_a_video_come_in_order_of_time(sampler):
    item = OverlappedAligner(replace(CONFIG, sampler=sampler, clip_per_video=30), SPECIAL)(
        "v", VIDEO, TEXT, ItemRandom(0)
    )
    keys = list(
        zip(
            *(item[key].tolist() for key in ("text_start", "video_start", "text_end", "video_end")),
            strict=True,
        )
    )
    assert keys == sorted(keys) and len(set(keys)) > 5


def test_clips_stay_as_drawn_when_sorting_is_off():
    item = OverlappedAligner(replace(CONFIG, sort_clips=False, clip_per_video=30), SPECIAL)(
        "v", VIDEO, TEXT, ItemRandom(0)
    )
    starts = item["text_start"].tolist()
    assert starts != sorted(starts)


@pytest.mark.parametrize("sampler", ["generator", "python"])
def test_fixed_clips_span_every_second_their_captions_touch(sampler):
    text = {"start": np.arange(12) * 4.3 + 0.6, "end": np.arange(12) * 4.3 + 3.2, "cap": TEXT["cap"]}
    item = VariedLenAligner(replace(CONFIG, sampler=sampler, clip_per_video=40), SPECIAL)(
        "v", VIDEO, text, ItemRandom(0)
    )
    assert item["video_start"].tolist() == np.floor(text["start"][item["text_start"]]).tolist()
    assert item["video_end"].tolist() == np.ceil(text["end"][item["text_end"] - 1]).tolist()


@pytest.mark.parametrize("sampler", ["generator", "python"])
def test_overlapped_clips_begin_at_any_second_that_their_caption_touches_both_ends_included(sampler):
    text = {"start": [20.0], "end": [22.0], "cap": [[20]]}
    one_second = replace(CONFIG, sampled_video_min_len=1, sampled_video_max_len=1, clip_per_video=200)
    item = OverlappedAligner(replace(one_second, sampler=sampler), SPECIAL)("v", VIDEO, text, ItemRandom(0))
    # seconds 20, 21, 22 are drawn; a clip of one second lies on either side of the drawn one
    assert set(item["video_start"].tolist()) == {19, 20, 21, 22}


@pytest.mark.parametrize("sampler", ["generator", "python"])
def test_lengths_of_clips_reach_both_ends_of_their_range(sampler):
    config = replace(CONFIG, sampled_video_min_len=3, sampled_video_max_len=5, clip_per_video=200)
    item = OverlappedAligner(replace(config, sampler=sampler), SPECIAL)("v", VIDEO, TEXT, ItemRandom(0))
    assert set((item["video_end"] - item["video_start"]).tolist()) == {3, 4, 5}


@pytest.mark.parametrize("sampler", ["generator", "python"])
def test_overlapped_clips_stay_inside_a_video_that_ends_before_its_captions(sampler):
    text = {"start": [0.0, 8.0], "end": [4.0, 90.0], "cap": [[20], [21]]}
    item = OverlappedAligner(replace(CONFIG, sampler=sampler, clip_per_video=200), SPECIAL)(
        "v", VIDEO[:10], text, ItemRandom(0)
    )
    assert item["video_start"].min() >= 0 and item["video_end"].max() == 10
    assert torch.equal(item["vmasks"].sum(1), item["video_end"] - item["video_start"])


def test_overlapped_clips_keep_their_budgets():
    item = OverlappedAligner(replace(CONFIG, clip_per_video=300), SPECIAL)("v", VIDEO, TEXT, ItemRandom(0))
    lengths = item["vmasks"].sum(1)
    assert (lengths.min(), lengths.max()) == (3, 16)
    words = item["cmasks"].sum(1) - 3
    assert (
        words.min() >= 4 and words.max() <= 12 + 3
    )  # the last caption may exceed the budget by its own words less one


@pytest.mark.parametrize("sampler", ["generator", "python"])
def test_start_clips_begin_with_the_first_caption(sampler):
    item = StartClipAligner(replace(CONFIG, sampler=sampler), SPECIAL)("v", VIDEO, TEXT, ItemRandom(0))
    assert item["text_start"].tolist() == [0] * 6


@pytest.mark.parametrize("aligner_cls", [VideoRetriAligner, VideoRetriOverlappedAligner])
def test_a_group_gets_a_leading_dimension_and_keeps_videos_apart(aligner_cls):
    places = [("a", -1, 0, 0), ("b", -1, 0, 1), ("c", -1, 4, 2)]
    videos = [VIDEO[:n] + 1000 * i for i, n in enumerate((60, 20, 45))]
    texts = [{**TEXT, "cap": [[30 + i]] * 12} for i in range(3)]
    item = aligner_cls(CONFIG, SPECIAL)(places, videos, texts, ItemRandom(0))
    assert item["video_id"] == ["a", "b", "c"]
    assert item["caps"].shape == (3, 6, 32) and item["vfeats"].shape == (3, 6, 16, 4)
    for i in range(3):
        assert set(item["caps"][i].unique().tolist()) <= {0, 1, 2, 30 + i}
        frames = item["vfeats"][i][item["vmasks"][i]]
        assert frames.min() >= 1000 * i and frames.max() < 1000 * i + len(videos[i])
        assert item["text_end"][i].max() <= 12 and item["text_start"][i].min() >= 0


def test_a_sharded_id_is_reduced_to_the_video():
    assert OverlappedAligner(CONFIG, SPECIAL)(("a", 5, 0, 1), VIDEO, TEXT, ItemRandom(0))["video_id"] == "a"


def test_captions_behind_the_features_are_not_drawn_and_their_video_is_named_once(caplog):
    aligner = FixedLenAligner(replace(CONFIG, clip_per_video=50), SPECIAL)
    for seed in range(2):
        item = aligner("v", VIDEO[:10], TEXT, ItemRandom(seed))
    assert caplog.text.count("video 'v': 9 of 12 captions begin after its 10 seconds") == 1
    assert item["text_end"].max() == 3  # captions begin at 0, 4, 8, 12, ...


def test_captions_behind_the_features_can_be_refused():
    with pytest.raises(MissingData, match="'v': 9 of 12 captions begin after its 10 seconds"):
        FixedLenAligner(replace(CONFIG, on_missing="error"), SPECIAL)("v", VIDEO[:10], TEXT, ItemRandom(0))


@pytest.mark.parametrize("sampler", ["generator", "python"])
def test_a_video_shorter_than_its_captions_is_clamped(sampler):
    item = FixedLenAligner(replace(CONFIG, sampler=sampler, clip_per_video=30), SPECIAL)(
        "v", VIDEO[:2], TEXT, ItemRandom(0)
    )
    assert item["video_end"].max() == 2 and (item["vmasks"].sum(1) >= 1).all()


@pytest.mark.parametrize("sampler", ["generator", "python"])
def test_a_video_without_captions_is_missing_data(sampler):
    with pytest.raises(MissingData, match="'v' has no captions"):
        OverlappedAligner(replace(CONFIG, sampler=sampler), SPECIAL)(
            "v", VIDEO, {"start": [], "end": [], "cap": []}, ItemRandom(0)
        )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_name_the_video(value):
    bad = VIDEO.copy()
    bad[:, 2] = value
    with pytest.raises(ValueError, match="video 'b': features hold NaN or infinite"):
        VideoRetriOverlappedAligner(CONFIG, SPECIAL)(["a", "b"], [VIDEO, bad], [TEXT, TEXT], ItemRandom(0))


def test_huge_finite_features_pass():
    item = OverlappedAligner(CONFIG, SPECIAL)("v", np.full((60, 4), 3e38, np.float32), TEXT, ItemRandom(0))
    assert item["vfeats"].max() == np.float32(3e38)


@pytest.mark.parametrize("feature", [[[1.0]], np.zeros(5, np.float32)])
def test_features_of_another_shape_are_refused(feature):
    with pytest.raises(ValueError, match=r"expected an array \(seconds, D\)"):
        OverlappedAligner(CONFIG, SPECIAL)("v", feature, TEXT, ItemRandom(0))


def test_videos_of_different_width_are_refused():
    with pytest.raises(ValueError, match=r"feature widths \[4, 5\]"):
        pack_videos([np.zeros((3, 4)), np.zeros((3, 5))], np.array([0, 1]), np.array([[0, 2], [0, 2]]), 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip_per_video": None}, "clip_per_video or dataset.subsampling"),
        ({"keep_prob": 0.5}, "dataset.keep_prob=0.5 has no effect"),
        ({"sampled_min_len": 9, "sampled_max_len": 8}, "sampled_min_len=9"),
        ({"sampled_video_max_len": None}, "dataset.sampled_video_max_len is not set"),
        ({"max_len": None}, "dataset.max_len is not set"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_the_door(changes, message):
    with pytest.raises(ValueError, match=message):
        OverlappedAligner(replace(CONFIG, **changes), SPECIAL)


def test_an_aligner_that_draws_asks_for_random_streams():
    with pytest.raises(ValueError, match="pass the random streams"):
        OverlappedAligner(CONFIG, SPECIAL)("v", VIDEO, TEXT)


def test_subsampling_counts_clips_where_clip_per_video_is_absent():
    item = OverlappedAligner(replace(CONFIG, clip_per_video=None, subsampling=2), SPECIAL)(
        "v", VIDEO, TEXT, ItemRandom(0)
    )
    assert len(item["caps"]) == 2


def test_milnce_candidates_of_a_short_video_repeat_the_last():
    text = {"start": [0.0, 4.0], "end": [3.0, 9.0], "cap": [[20], [21]]}
    item = How2MILNCEAligner(CONFIG, SPECIAL)("v", VIDEO, text, ItemRandom(0))
    assert item["caps"][:, :, 2].tolist() == [[20, 21, 21, 21]] * 6


def test_milnce_captions_shorter_than_five_seconds_are_widened_also_at_the_start():
    aligner = How2MILNCEAligner(CONFIG, SPECIAL)
    starts = {aligner.seconds(0.3, 1.3, 60, ItemRandom(seed)) for seed in range(40)}
    assert starts == {(0, 3), (1, 4)}
    assert {aligner.seconds(20.0, 21.0, 60, ItemRandom(seed)) for seed in range(40)} == {(18, 21), (19, 22)}


def test_the_base_aligner_takes_the_first_seconds_and_the_first_caption():
    item = Aligner(CONFIG, SPECIAL)("v", VIDEO, TEXT)
    assert item["caps"].tolist() == [1, 2, 20, 2] + [0] * 28
    assert item["vfeats"][:, 0].tolist() == list(range(16))


def test_float16_features_become_float32():
    vfeats, _ = Aligner(CONFIG, SPECIAL).build_video(VIDEO[:5].astype(np.float16), "v")
    assert vfeats.dtype == torch.float32


SHUFFLED = {"start": [4.0, 0.0, 8.0], "end": [7.0, 3.0, 5.0], "cap": [[11], [12], [13]]}


def test_captions_out_of_order_are_refused_by_video_and_caption():
    aligner = OverlappedAligner(CONFIG, SPECIAL)
    with pytest.raises(ValueError, match=r"video 'v': caption 1 runs from 0 to 3 s, out of order"):
        aligner("v", VIDEO, SHUFFLED, ItemRandom.for_item(0, 0, 0))


def test_captions_are_sorted_and_impossible_ones_left_out_where_asked_for(caplog):
    aligner = OverlappedAligner(replace(CONFIG, caption_times="sort"), SPECIAL)
    right = {"start": [0.0, 4.0], "end": [3.0, 7.0], "cap": [[12], [11]]}
    found, expected = (aligner("v", VIDEO, said, ItemRandom.for_item(0, 0, 0)) for said in (SHUFFLED, right))
    assert torch.equal(found["caps"], expected["caps"]) and torch.equal(found["vfeats"], expected["vfeats"])
    assert "video 'v': captions out of order" in caplog.text and "1 of 3 left out" in caplog.text
