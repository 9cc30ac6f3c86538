from collections import Counter
from dataclasses import replace

import pytest

from mmpt.processors import (
    MetaProcessor,
    MissingData,
    VideoProcessor,
    YoucookFullVideoBGAligner,
    YoucookFullVideoBGMetaProcessor,
    YoucookFullVideoBGProcessor,
    YoucookFullVideoBGTextProcessor,
    YoucookMetaProcessor,
    YoucookNLGMetaProcessor,
    YoucookVideoProcessor,
)
from mmpt.processors.sets.youcook import records_from_json, records_from_milnce_csv
from mmpt.utils import save_plain_pickle
from tests.conftest import golden_cases, real_path
from tests.processors.helpers import CONFIG, SPECIAL, WordTokenizer, touch_features, write_json
from tests.processors.items import assert_matches, sentence

DATABASE = {
    "a_b": {
        "subset": "validation",
        "annotations": [
            {"segment": [2, 5], "id": 0, "sentence": "chop it"},
            {"segment": [7, 30], "id": 1, "sentence": "fry it"},
        ],
    },
    "c": {"subset": "validation", "annotations": [{"segment": [1, 4], "id": 0, "sentence": "serve it"}]},
    "d": {"subset": "training", "annotations": [{"segment": [25, 30], "id": 0, "sentence": "eat it"}]},
}
RECORDS = [
    {"id": "c_0", "caption": "plate"},
    {"id": "a_b_1", "caption": "fry"},
    {"id": "a_b_0", "caption": "chop"},
    {"id": "gone_0", "caption": "x"},
]


@pytest.fixture
def config(tmp_path):
    save_plain_pickle(RECORDS, tmp_path / "val.pkl")
    (tmp_path / "val.txt").write_text("113/a_b\n205/c\n1/gone\n")
    return replace(
        CONFIG,
        split="test",
        test_path=f"{tmp_path}/val.pkl",
        vfeat_dir=str(touch_features(tmp_path / "features", ["a_b", "c", "d"])),
        trainval_annotation=write_json(tmp_path / "annotations.json", {"database": DATABASE}),
    )


def test_items_are_clips_with_the_pickled_caption(config):
    meta = YoucookMetaProcessor(config)
    assert list(meta) == [(("c", 1, 4), "plate"), (("a_b", 7, 30), "fry"), (("a_b", 2, 5), "chop")]
    assert meta.missing == {"have no features": ["gone"]}


def test_the_annotated_sentence_replaces_the_caption_on_demand(config):
    assert [text for _, text in YoucookMetaProcessor(replace(config, use_annotation_text=True))] == [
        "serve it",
        "fry it",
        "chop it",
    ]


def test_a_record_without_annotation_is_named(config, tmp_path):
    save_plain_pickle([{"id": "c_7", "caption": "x"}], tmp_path / "val.pkl")
    with pytest.raises(ValueError, match="record 'c_7' has no clip in"):
        YoucookMetaProcessor(config)


def test_features_are_the_rows_of_the_segment(config):
    video = YoucookVideoProcessor(config)
    assert video(("a_b", 2, 5))[:, 0].tolist() == [2, 3, 4]
    assert len(video(("a_b", 7, 30))) == 13  # the features end at 20 seconds


def test_a_clip_behind_the_features_is_missing_data(config):
    with pytest.raises(MissingData, match="video 'd': its features end before the clip of seconds 25 to 30"):
        YoucookVideoProcessor(config)(("d", 25, 30))


def test_clips_and_whole_videos_ask_for_each_others_class(config):
    with pytest.raises(ValueError, match="id 'd': expected a clip .*; VideoProcessor reads whole videos"):
        YoucookVideoProcessor(config)("d")
    with pytest.raises(MissingData, match="YoucookVideoProcessor reads clips"):
        VideoProcessor(config)(("d", 25, 30))


def test_full_videos_come_in_the_order_of_their_first_record(config):
    meta = YoucookFullVideoBGMetaProcessor(config)
    assert list(meta) == [("c", ["plate"]), ("a_b", ["fry", "chop"])]


def test_a_full_video_item_holds_windows_and_all_captions(config):
    video, captions = YoucookFullVideoBGMetaProcessor(config)[1]
    ids = YoucookFullVideoBGTextProcessor(config, WordTokenizer())(captions)
    item = YoucookFullVideoBGAligner(config, SPECIAL)(video, YoucookFullVideoBGProcessor(config)(video), ids)
    assert item["caps"].shape == (2, 32) and item["vfeats"].shape == (2, 16, 4) and item["video_len"] == 20
    assert item["vfeats"][1, :, 0].tolist() == list(range(8, 20)) + [0] * 4


@pytest.mark.parametrize("path", golden_cases("norton_data*.npz"))
def test_golden_norton_data_fullvideobg_aligner(golden):
    item = YoucookFullVideoBGAligner(CONFIG, SPECIAL)(
        "v", golden["video_feature"][:37], [sentence(golden, i) for i in range(4)]
    )
    assert_matches(golden, "fullvideobg_aligner", item)


def test_captioning_takes_all_clips_of_the_listed_videos(config, tmp_path):
    meta = YoucookNLGMetaProcessor(replace(config, test_path=f"{tmp_path}/val.txt"))
    assert list(meta) == [(("a_b", 2, 5), "chop it"), (("a_b", 7, 30), "fry it"), (("c", 1, 4), "serve it")]


def test_records_are_rebuilt_from_the_annotation(config):
    assert [record["id"] for record in records_from_json(config.trainval_annotation, "validation")] == [
        "a_b_0",
        "a_b_1",
        "c_0",
    ]


def test_two_clips_of_one_segment_are_taken_in_order(tmp_path):
    clips = [{"segment": [2, 5], "sentence": "chop"}, {"segment": [2, 5], "sentence": "stir"}]
    annotation = write_json(
        tmp_path / "a.json", {"database": {"v": {"subset": "validation", "annotations": clips}}}
    )
    (tmp_path / "gallery.csv").write_text("end,start,task,text,video_id\n5,2,1,chop,v\n5,2,1,stir,v\n")
    assert [record["id"] for record in records_from_milnce_csv(tmp_path / "gallery.csv", annotation)] == [
        "v_0",
        "v_1",
    ]


def test_a_row_without_annotated_clip_is_refused(config, tmp_path):
    (tmp_path / "gallery.csv").write_text("end,start,task,text,video_id\n5,2,1,chop,a_b\n9,8,1,x,c\n")
    with pytest.raises(ValueError, match=r"video 'c' has no clip \(8, 9\)"):
        records_from_milnce_csv(tmp_path / "gallery.csv", config.trainval_annotation)


@pytest.mark.parametrize(
    ("subset", "videos", "clips"), [("training", 1333, 10337), ("validation", 457, 3492)]
)
def test_the_real_annotation_has_the_known_numbers(subset, videos, clips):
    records = records_from_json(real_path("youcook2", "youcookii_annotations_trainval.json"), subset)
    assert len(records) == clips
    assert len({record["id"].rpartition("_")[0] for record in records}) == videos


def test_the_real_retrieval_gallery_has_3350_clips_of_436_videos(tmp_path, monkeypatch):
    annotation = real_path("youcook2", "youcookii_annotations_trainval.json")
    save_plain_pickle(
        records_from_milnce_csv(real_path("youcook2", "milnce_validation_youcook.csv"), annotation),
        tmp_path / "val.pkl",
    )
    monkeypatch.setattr(MetaProcessor, "has_features", lambda self: lambda video_id: True)
    config = replace(
        CONFIG,
        split="test",
        test_path=f"{tmp_path}/val.pkl",
        trainval_annotation=str(annotation),
        vfeat_dir="-",
    )
    clips = [clip for clip, _ in YoucookMetaProcessor(config)]
    assert len(clips) == 3350 and len(YoucookFullVideoBGMetaProcessor(config)) == 436
    assert Counter(video for video, _, _ in clips).total() == 3350
