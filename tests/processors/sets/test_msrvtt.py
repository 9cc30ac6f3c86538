from dataclasses import replace

import pytest

from mmpt.processors import (
    MetaProcessor,
    MissingData,
    MSRVTTMetaProcessor,
    MSRVTTNLGTextProcessor,
    MSRVTTQAAligner,
    MSRVTTQAMetaProcessor,
    MSRVTTQATextProcessor,
    MSRVTTTextProcessor,
    VideoProcessor,
)
from mmpt.utils import ItemRandom
from tests.conftest import golden_cases, real_path
from tests.processors.helpers import CONFIG, SPECIAL, WordTokenizer, touch_features, write_json
from tests.processors.items import VIDEO, assert_matches, sentence


@pytest.fixture
def config(tmp_path):
    (tmp_path / "test.csv").write_text(
        'key,vid_key,video_id,sentence\nr0,msr3,video3,a man runs\nr1,msr4,video4,"a dog, barking"\n'
    )
    (tmp_path / "full.csv").write_text("video_id,sentence\nvideo2,x\nvideo3,x\nvideo2,y\nvideo5,z\n")
    (tmp_path / "train.csv").write_text("video_id\nvideo0\nvideo1\n")
    captions = [
        {"video_id": f"video{i}", "caption": f"{'a' * (1 + i)} {j}"} for i in (0, 1, 2) for j in range(3)
    ]
    folder = touch_features(tmp_path / "features", [f"video{i}" for i in range(5)])
    return replace(
        CONFIG,
        split="train",
        vfeat_dir=str(folder),
        train_path=f"{tmp_path}/train.csv",
        val_path=f"{tmp_path}/test.csv",
        test_path=f"{tmp_path}/test.csv",
        json_path=write_json(tmp_path / "data.json", {"sentences": captions}),
    )


def test_test_items_carry_their_sentence(config):
    meta = MSRVTTMetaProcessor(replace(config, split="test"))
    assert list(meta) == [("video3", "a man runs"), ("video4", "a dog, barking")]


def test_a_name_with_accents_that_no_file_has_is_said_to_be_spelled_in_two_ways(config, tmp_path, caplog):
    (tmp_path / "test.csv").write_text("video_id,sentence\nvideo3,a man runs\ncafé,a dog\n")
    MSRVTTMetaProcessor(replace(config, split="test"))
    assert "café (1 with accents, which names of files may spell in another way: NFC or NFD)" in caplog.text


def test_training_items_repeat_the_table(config):
    assert (
        list(MSRVTTMetaProcessor(replace(config, dup=3))) == [("video0", "video0"), ("video1", "video1")] * 3
    )


def test_training_takes_the_full_test_list_less_the_held_out_videos(config, tmp_path):
    meta = MSRVTTMetaProcessor(
        replace(config, full_test_path=f"{tmp_path}/full.csv", jsfusion_path=f"{tmp_path}/test.csv")
    )
    assert [video for video, _ in meta] == ["video0", "video1", "video2"]
    assert meta.missing == {"have no features": ["video5"]}


def test_one_of_the_videos_captions_is_drawn_at_every_access(config):
    text = MSRVTTTextProcessor(config, WordTokenizer())
    drawn = {tuple(text.text("video1", ItemRandom(seed)).split()) for seed in range(20)}
    assert drawn == {("aa", "0"), ("aa", "1"), ("aa", "2")}


def test_the_drawn_caption_is_that_of_pythons_random(config):
    import random

    random.seed(5)
    assert (
        MSRVTTTextProcessor(config, WordTokenizer()).text("video1", ItemRandom(5))
        == f"aa {random.randint(0, 2)}"
    )


def test_validation_keeps_the_sentence_of_the_table(config):
    assert MSRVTTTextProcessor(replace(config, split="valid"), WordTokenizer())("a man runs") == [11, 13, 14]


def test_a_training_video_without_captions_is_missing_data(config):
    with pytest.raises(MissingData, match="no caption of video 'video9'"):
        MSRVTTTextProcessor(config, WordTokenizer())("video9", ItemRandom(0))


def test_captions_to_be_generated_come_with_their_text(config):
    assert MSRVTTNLGTextProcessor(replace(config, split="test"), WordTokenizer())("a man runs") == (
        [11, 13, 14],
        "a man runs",
    )


def test_a_missing_column_is_named(config, tmp_path):
    (tmp_path / "train.csv").write_text("video,sentence\nv,s\n")
    with pytest.raises(ValueError, match="train.csv: no column video_id; its header is"):
        MSRVTTMetaProcessor(config)


def test_a_table_without_rows_is_refused(config, tmp_path):
    (tmp_path / "train.csv").write_text("video_id\n")
    with pytest.raises(ValueError, match="holds no row"):
        MSRVTTMetaProcessor(config)


def test_a_list_without_any_features_is_refused(config, tmp_path):
    (tmp_path / "train.csv").write_text("video_id\nvideo77\n")
    with pytest.raises(MissingData, match="no item left of 1; 1 have no features, e.g. .*video77"):
        MSRVTTMetaProcessor(config)


def test_a_missing_feature_file_is_missing_data(config):
    with pytest.raises(MissingData, match="no features for video 'video77'"):
        VideoProcessor(config)("video77")


def test_a_truncated_feature_file_is_named(config, tmp_path):
    file = tmp_path / "features" / "video0.npy"
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(ValueError, match="video0.npy: not a whole .npy file"):
        VideoProcessor(config)("video0")


@pytest.fixture
def qa(config, tmp_path):
    rows = (
        "key\tvid_key\ta1\ta2\ta3\ta4\ta5\tanswer\n0\tmsr3\ta\tbb\tccc\td\te\t2\n1\tmsr9\ta\tb\tc\td\te\t0\n"
    )
    (tmp_path / "mc.csv").write_text(rows)
    return replace(config, split="test", test_path=f"{tmp_path}/mc.csv")


def test_questions_name_their_video_and_five_answers(qa):
    meta = MSRVTTQAMetaProcessor(qa)
    assert list(meta) == [("video3", (2, ["a", "bb", "ccc", "d", "e"]))]
    assert meta.missing == {"have no features": ["video9"]}
    assert MSRVTTQATextProcessor(qa, WordTokenizer())(meta[0][1]) == (2, [[11], [12], [13], [11], [11]])


@pytest.mark.parametrize("path", golden_cases("norton_data*.npz"))
def test_golden_norton_data_qa_aligner(golden):
    item = MSRVTTQAAligner(CONFIG, SPECIAL)(
        "v", golden["video_feature"][:9], (2, [sentence(golden, i) for i in range(5)])
    )
    assert_matches(golden, "qa_aligner", item)
    assert VIDEO.dtype == item["vfeats"].numpy().dtype


@pytest.mark.parametrize(
    ("file", "split", "count", "distinct"),
    [
        ("MSRVTT_JSFUSION_test.csv", "test", 1000, 995),
        ("MSRVTT_train.9k.csv", "train", 9000, 9000),
        ("MSRVTT_train.7k.csv", "train", 7010, 7010),
    ],
)
def test_the_real_lists_have_the_known_numbers_of_items(file, split, count, distinct, monkeypatch):
    monkeypatch.setattr(MetaProcessor, "has_features", lambda self: lambda video_id: True)
    path = str(real_path("msrvtt", file))
    items = list(MSRVTTMetaProcessor(replace(CONFIG, split=split, train_path=path, test_path=path)))
    assert len(items) == len({video for video, _ in items}) == count
    assert len({text for _, text in items}) == distinct
