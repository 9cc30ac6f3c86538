"""`verify` as a function of the library: what it asks of a data set, and its sanity checks."""

import numpy as np
import pytest

from mmpt.config import Config, ConfigError, DatasetConfig
from mmpt.processors import MetaProcessor
from mmpt.processors.base import PublishedList, build_parts
from mmpt.processors.store.passport import wrong_rate
from mmpt.processors.verify import check_features, check_files, repeated_items, training_data, verify
from mmpt.registry import META_PROCESSORS


class OwnMeta(MetaProcessor):
    """A data set that no table of the package knows."""

    LIST = "list of Own videos"
    FILES = {"annotation_path": "Own annotations"}
    PUBLISHED = {"test": [PublishedList(2, 2, "Own et al.")]}

    def __init__(self, config):
        super().__init__(config)
        self.data = [("a", "stir"), ("b", "fry")]

    def segments(self):
        yield from (("a", [(0.0, 3.0)]), ("b", [(0.0, 9.0)]))

    def durations(self):
        return {"a": 4.0, "b": 4.0}


def test_a_data_set_of_ones_own_is_verified_by_what_its_class_says(tmp_path, monkeypatch):
    monkeypatch.setitem(META_PROCESSORS._classes, "OwnMeta", OwnMeta)
    (tmp_path / "list.txt").touch()
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", np.ones((4, 3), dtype=np.float32))
    dataset = DatasetConfig(
        meta_processor="OwnMeta",
        video_processor="VideoProcessor",
        text_processor="TextProcessor",
        aligner="Aligner",
        split="test",
        test_path=str(tmp_path / "list.txt"),
        annotation_path=str(tmp_path / "absent.csv"),
        vfeat_dir=str(tmp_path),
        max_len=8,
        max_video_len=4,
    )
    said = [str(finding) for finding in verify(Config(dataset=dataset))]
    for part in (
        "list.txt: 0 bytes; list of Own videos",
        "error   dataset.annotation_path",
        "not there; expected Own annotations",
        "ok      test: 2 items of 2 videos, as published: Own et al.",
        "1.00 feature rows per second",
        "1 of 2 segments end behind their features: b at 9 s of 4",
    ):
        assert any(part in text for text in said), (part, said)


def test_a_clip_that_a_list_names_twice_is_no_case_of_all_captions():
    (warning,) = repeated_items(1000, 999)
    assert "also stands under other rows" in warning and "20 per video" not in warning
    assert repeated_items(5, 5) == []


def test_features_of_another_rate_are_named():
    both = [{"seconds_per_feature": 0.5}, {"seconds_per_feature": 1.0}]
    assert "1, 2 features a second by the passports" in wrong_rate("features", both)[0]
    assert wrong_rate("f", [{"seconds_per_feature": 1.0}, {}]) == wrong_rate("f", []) == []


def test_weights_that_saw_a_list_of_their_own_say_what_their_number_is():
    (labelled,) = training_data({"train_path": "train.csv"})
    (narrated,) = training_data({"train_path": "how2_s3d_train.lst", "tfeat_dir": "how2."})
    assert labelled.startswith("trained on train.csv; zero-shot") and narrated.startswith("pre-trained on")
    assert training_data({}) == []


def test_clips_of_ones_own_data_set_are_segments_of_their_videos(tmp_path):
    meta = MetaProcessor(DatasetConfig(split="test", test_path=str(tmp_path / "list.csv")))
    meta.data = [(("a", 0, 3), "stir"), (("a", 3, 9), "fry"), ("b", "serve")]
    assert [meta.videos(index) for index in range(3)] == [["a"], ["a"], ["b"]]
    assert list(meta.segments()) == [("a", [(0, 3)]), ("a", [(3, 9)]), ("b", [])]


@pytest.mark.parametrize("key, value, absent", [("test_path", "l.csv", "l.csv"), ("anno_path", "", "a.json")])
def test_a_file_that_is_not_there_is_named_with_its_key(key, value, absent, tmp_path, monkeypatch):
    class Opens(MetaProcessor):
        def __init__(self, config):
            (tmp_path / absent).read_text()

    monkeypatch.setitem(META_PROCESSORS._classes, "Opens", Opens)
    config = DatasetConfig(meta_processor="Opens", **{key: str(tmp_path / value)})
    with pytest.raises(FileNotFoundError, match=rf"x.yaml: dataset.{key}: .*{absent}: no such file"):
        build_parts(config, "x.yaml")


def test_a_file_that_no_class_reads_is_no_error_where_it_is_absent(tmp_path):
    (tmp_path / "list.txt").touch()
    paths = {"test_path": str(tmp_path / "list.txt"), "json_path": str(tmp_path / "x.json")}
    found = list(check_files(DatasetConfig(meta_processor="MetaProcessor", split="test", **paths)))
    assert [finding.level for finding in found] == ["ok", "note"]


def test_one_number_that_is_not_finite_is_found_in_any_of_a_few_hundred_files(tmp_path):
    names = [f"v{i:03}" for i in range(60)]
    for name in names:
        rows = np.ones((4, 3), np.float32)
        rows[2, 1] = np.nan if name == "v031" else 1
        np.save(tmp_path / f"{name}.npy", rows)
    config = DatasetConfig(split="test", vfeat_dir=str(tmp_path))
    meta = MetaProcessor(config)
    meta.data = [(name, "stir") for name in names]
    said = [str(finding) for finding in check_features(config, "test", meta)]
    assert [text for text in said if "NaN" in text] == [text for text in said if "v031" in text] != []


def test_a_key_that_is_not_set_is_named_with_its_file():
    with pytest.raises(ConfigError, match="^x.yaml: dataset.test_path is not set"):
        build_parts(DatasetConfig(meta_processor="MSRVTTMetaProcessor", split="test"), "x.yaml")
