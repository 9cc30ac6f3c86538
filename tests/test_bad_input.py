"""Wrong annotation and feature files of end tasks: one clear error, or a counted skip, never a silent
number."""

from __future__ import annotations

import json
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmpt.config import DatasetConfig, EvalConfig, load_config
from mmpt.datasets import build_dataset
from mmpt.evaluators import COINPredictor, CrossTaskMetric, CrossTaskPredictor, DiDeMoPredictor, QAPredictor
from mmpt.processors import (
    COINActionSegmentationMetaProcessor,
    CrossTaskMetaProcessor,
    DiDeMoMetaProcessor,
    HTMAlignMetaProcessor,
    MissingData,
    MSRVTTMetaProcessor,
    MSRVTTQAMetaProcessor,
    RecognitionMetaProcessor,
    YoucookMetaProcessor,
)
from mmpt.processors.sets.crosstask import read_segments
from tests.conftest import ROOT

IMPOSSIBLE = {"reversed": [9.0, 3.0], "negative": [-2.0, 3.0], "not a number": [0.0, float("nan")]}


@pytest.fixture
def features(tmp_path):
    folder = tmp_path / "features"
    folder.mkdir()
    np.save(folder / "video0.npy", np.ones((20, 4), dtype=np.float32))
    return str(folder)


def write(path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return str(path)


def coin(segment):
    return {
        "database": {
            "video0": {"subset": "testing", "annotation": [{"id": "1", "label": "stir", "segment": segment}]}
        }
    }


def youcook(segment, sentence="stir"):
    return {
        "database": {
            "video0": {
                "subset": "validation",
                "annotations": [{"segment": segment, "id": 0, "sentence": sentence}],
            }
        }
    }


def pickled(path, records=({"id": "video0_0", "caption": "stir"},)):
    path.write_bytes(pickle.dumps(list(records)))
    return str(path)


@pytest.mark.parametrize("segment", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_an_impossible_segment_is_named_with_its_video(segment, features, tmp_path):
    message = "video 'video0'.* runs from .* expected 0 <= start <= end"
    path = write(tmp_path / "COIN.json", coin(segment))
    with pytest.raises(ValueError, match=message):
        COINActionSegmentationMetaProcessor(DatasetConfig(split="test", test_path=path, vfeat_dir=features))
    path, records = write(tmp_path / "youcook.json", youcook(segment)), pickled(tmp_path / "youcook.pkl")
    with pytest.raises(ValueError, match=message):
        YoucookMetaProcessor(
            DatasetConfig(split="test", test_path=records, trainval_annotation=path, vfeat_dir=features)
        )
    path = write(tmp_path / "htm.json", {"video0": [[1, *segment, "stir"]]})
    with pytest.raises(ValueError, match=message):
        HTMAlignMetaProcessor(DatasetConfig(split="test", anno_path=path, vfeat_dir=features))
    path = write(tmp_path / "1_video0.csv", f"2,{segment[0]},{segment[1]}\n")
    with pytest.raises(ValueError, match="1_video0.csv: step 2 runs from"):
        read_segments(path)


@pytest.mark.parametrize("times", [[[3, 1]], [[-1, 2]], [[0, 6]], []])
def test_an_impossible_moment_is_named_with_its_video(times, features, tmp_path):
    path = write(tmp_path / "test_data.json", [{"video": "video0", "description": "stir", "times": times}])
    with pytest.raises(ValueError, match="video 'video0', 'stir': times are .* 0 <= first <= last < 6"):
        DiDeMoMetaProcessor(DatasetConfig(split="test", test_path=path, vfeat_dir=features))


@pytest.mark.parametrize("end", ["5", "x", "", "\t"])
def test_a_question_without_five_answers_and_a_right_one_is_named(end, features, tmp_path):
    head = "vid_key\ta1\ta2\ta3\ta4\ta5\tanswer\n"
    path = write(tmp_path / "mc.csv", f"{head}msr0\ta\tb\tc\td\te\t1\nmsr0\ta\tb\tc\td\te\t{end}\n")
    with pytest.raises(ValueError, match=r"mc.csv.*line 3(: video 'msr0': expected five answers| has 8)"):
        MSRVTTQAMetaProcessor(DatasetConfig(split="test", test_path=path, vfeat_dir=features))


@pytest.mark.parametrize(
    "name", ["test_coin_ft", "test_crosstask_ft", "test_youcook_fullvideo_bg_zs", "test_htm_align_zs"]
)
def test_a_video_of_zero_seconds_is_named(name, toy_world, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "toy").symlink_to(toy_world)
    monkeypatch.chdir(tmp_path)
    dataset = build_dataset(load_config(ROOT / f"projects/toy/{name}.yaml"), "test")
    dataset.video_processor = lambda video_id: np.zeros((0, 512), dtype=np.float16)
    with pytest.raises(MissingData, match="video '.*' has features of zero seconds"):
        dataset[0]


@pytest.mark.parametrize("caption", ["", None])
def test_a_missing_caption_is_an_error_that_names_the_record(caption, features, tmp_path):
    table = write(tmp_path / "test.csv", f"key,vid_key,video_id,sentence\nret0,msr0,video0,{caption or ''}\n")
    with pytest.raises(MissingData, match="test.csv, line 2: video 'video0' has no sentence"):
        MSRVTTMetaProcessor(DatasetConfig(split="test", test_path=table, vfeat_dir=features))
    records, path = (
        pickled(tmp_path / "youcook.pkl"),
        write(tmp_path / "youcook.json", youcook([0, 5], caption)),
    )
    with pytest.raises(MissingData, match="record 'video0_0' has no caption"):
        YoucookMetaProcessor(
            DatasetConfig(
                split="test",
                test_path=records,
                trainval_annotation=path,
                vfeat_dir=features,
                use_annotation_text=True,
            )
        )


def test_the_file_of_another_data_set_is_refused_as_such(features, tmp_path):
    files = {
        "coin": write(tmp_path / "test_coin.json", coin([0, 5])),
        "youcook": write(tmp_path / "test_youcook.json", youcook([0, 5])),
        "didemo": write(
            tmp_path / "test_didemo.json", [{"video": "video0", "description": "stir", "times": [[0, 0]]}]
        ),
        "csv": write(tmp_path / "test.csv", "key,vid_key,video_id,sentence\nret0,msr0,video0,stir\n"),
    }
    readers = {
        "coin": lambda path: COINActionSegmentationMetaProcessor(
            DatasetConfig(split="test", test_path=path, vfeat_dir=features)
        ),
        "didemo": lambda path: DiDeMoMetaProcessor(
            DatasetConfig(split="test", test_path=path, vfeat_dir=features)
        ),
        "htm": lambda path: HTMAlignMetaProcessor(
            DatasetConfig(split="test", anno_path=path, vfeat_dir=features)
        ),
        "youcook": lambda path: YoucookMetaProcessor(
            DatasetConfig(
                split="test", test_path=path, trainval_annotation=files["youcook"], vfeat_dir=features
            )
        ),
        "crosstask": lambda path: CrossTaskMetaProcessor(
            DatasetConfig(
                split="test",
                primary_path=path,
                related_path=path,
                train_csv_path=path,
                val_csv_path=path,
                vfeat_dir=features,
            )
        ),
        "msrvtt": lambda path: MSRVTTMetaProcessor(
            DatasetConfig(split="test", test_path=path, vfeat_dir=features)
        ),
    }
    for reader, read in readers.items():
        for kind, path in files.items():
            if (reader, kind) in {("coin", "coin"), ("didemo", "didemo"), ("msrvtt", "csv")}:
                continue
            with pytest.raises(ValueError, match=r"test\w*\.\w+[:,] "):
                read(path)


def test_split_lists_that_are_not_there_say_what_was_looked_for(features, tmp_path):
    with pytest.raises(FileNotFoundError, match="neither UCF101's .* nor HMDB51's"):
        RecognitionMetaProcessor(
            DatasetConfig(split="test", annotation_path=str(tmp_path), vfeat_dir=features)
        )


class Broken(torch.nn.Module):
    """Answers with one NaN, whatever is asked."""

    def forward(self, **batch):
        logits = torch.zeros(20, 3)
        logits[7, 1] = float("nan")
        vectors = torch.full((5, 4), float("nan"))
        return {
            "logits": logits,
            "pooled_video": vectors,
            "pooled_text": vectors,
            "video_outputs": vectors[None].repeat(5, 1, 1),
        }


def window_batch():
    targets = {"targets": torch.zeros(1, 20, 3), "video_targets": torch.zeros(1, 20)}
    return {"video_id": ["abc"], "video_len": torch.tensor([20]), "task": ["9"], **targets}


@pytest.mark.parametrize("predictor", [COINPredictor, CrossTaskPredictor, QAPredictor, DiDeMoPredictor])
def test_non_finite_scores_are_refused_with_the_video(predictor):
    config = SimpleNamespace(dataset=DatasetConfig(sliding_window=20, sliding_window_size=20))
    masks = torch.ones(1, 3, dtype=torch.bool)
    batch = window_batch() | {
        "caps": torch.zeros(1, 5, 4),
        "cmasks": torch.ones(1, 5, 4),
        "vfeats": torch.zeros(1, 3, 4),
        "vmasks": masks,
    }
    with pytest.raises(FloatingPointError, match="non-finite scores in the batch of abc"):
        predictor(config).predict(batch, Broken())


def test_fewer_seconds_than_steps_is_an_error_that_names_video_and_task():
    config = SimpleNamespace(dataset=DatasetConfig(sliding_window=2, sliding_window_size=2))
    batch = window_batch() | {"video_len": torch.tensor([2]), "targets": torch.zeros(1, 2, 3)}
    with pytest.raises(ValueError, match="video abc of task 9: cannot place 3 steps in order on 2 frames"):
        CrossTaskPredictor(config).predict(batch, lambda **_: {"logits": torch.zeros(2, 3)})


def test_a_task_without_an_annotated_step_is_left_out_and_counted():
    empty, full = np.zeros((3, 2), dtype=np.uint8), np.eye(3, 2, dtype=np.uint8)
    result = CrossTaskMetric(EvalConfig(bootstrap=0)).evaluate(
        tasks=["a", "b"], Y_pred=[full, full], Y_true=[empty, full]
    )
    assert result.values["recall"] == 1 and result.facts["tasks without annotated steps"] == 1


def test_a_step_that_the_task_does_not_have_is_named(toy_world, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "toy").symlink_to(toy_world)
    monkeypatch.chdir(tmp_path)
    dataset = build_dataset(load_config(ROOT / "projects/toy/test_crosstask_ft.yaml"), "test")
    dataset.text_processor = lambda text_id, rng: ([[5]] * text_id[3], [(99, 0.0, 2.0)])
    with pytest.raises(ValueError, match="step 100 is annotated, but the task has"):
        dataset[0]
