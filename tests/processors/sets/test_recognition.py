"""Splits of UCF101 and HMDB51."""

import numpy as np
import pytest

from mmpt.config import DatasetConfig
from mmpt.processors import RecognitionAligner, RecognitionMetaProcessor, SpecialIds
from mmpt.processors.sets.recognition import words_of


@pytest.fixture
def ucf(tmp_path):
    (tmp_path / "classInd.txt").write_text("1 ApplyEyeMakeup\n2 Archery\n")
    (tmp_path / "trainlist01.txt").write_text("ApplyEyeMakeup/v_a.avi 1\n\n")
    (tmp_path / "testlist01.txt").write_text("Archery/v_b.avi\n")
    (tmp_path / "trainlist02.txt").write_text("Archery/v_b.avi 2\n")
    (tmp_path / "testlist02.txt").write_text("ApplyEyeMakeup/v_a.avi\nArchery/v_c.avi\n")
    return tmp_path


def items(folder, names):
    for name in names:
        np.save(folder / f"{name}.npy", np.ones((2, 4)))
    meta = RecognitionMetaProcessor(
        DatasetConfig(split="test", annotation_path=str(folder), vfeat_dir=str(folder))
    )
    return {meta[i][0]: meta[i][1] for i in range(len(meta))}, meta


def test_every_video_has_its_class_and_a_tag_per_split_of_ucf101(ucf):
    found, meta = items(ucf, ["v_a", "v_b", "v_c"])
    assert found == {"v_a": (0, [1, 2]), "v_b": (1, [2, 1]), "v_c": (1, [0, 2])}
    assert meta.class_names == ["apply eye makeup", "archery"]


def test_hmdb51_lists_are_read_by_class_file(tmp_path):
    (tmp_path / "brush_hair_test_split1.txt").write_text("one.avi 1 \ntwo.avi 2 \n")
    (tmp_path / "wave_test_split1.txt").write_text("three.avi 0 \n")
    found, meta = items(tmp_path, ["one", "two", "three"])
    assert found == {"one": (0, [1]), "two": (0, [2]), "three": (1, [0])} and meta.class_names == [
        "brush hair",
        "wave",
    ]


def test_videos_without_features_are_counted(ucf):
    assert items(ucf, ["v_a"])[1].missing == {"have no features": ["v_b", "v_c"]}


@pytest.mark.parametrize(
    ("label", "words"), [("YoYo", "yo yo"), ("brush_hair", "brush hair"), ("TaiChi", "tai chi")]
)
def test_a_label_becomes_words(label, words):
    assert words_of(label) == words


def test_an_item_has_an_empty_caption_for_models_that_want_one():
    aligner = RecognitionAligner(
        DatasetConfig(max_video_len=4, max_len=10), SpecialIds(cls=1, sep=2, pad=0, mask=3, vocab_size=10)
    )
    item = aligner("v", np.ones((3, 5), dtype=np.float32), (7, [1, 2, 0]))
    assert (
        item["caps"].tolist() == [1, 2, 2, 0, 0, 0]
        and int(item["label"]) == 7
        and item["splits"].tolist() == [1, 2, 0]
    )
