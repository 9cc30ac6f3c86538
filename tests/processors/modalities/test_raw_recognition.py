"""Clips of labelled videos by official splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt.config.schema import DatasetConfig
from mmpt.media.video import VideoInfo
from mmpt.processors.base import MissingData
from mmpt.processors.modalities.raw_clips import RawFile, RawVideoProcessor
from mmpt.processors.modalities.raw_recognition import (
    RawRecognitionAligner,
    RawRecognitionMetaProcessor,
    RawRecognitionSplitsMetaProcessor,
)
from mmpt.synthetic.action_clips import CLASSES, write_action_clips
from mmpt.utils.seed import ItemRandom
from tests.conftest import golden_cases, load_golden

pytest.importorskip("av")
RAW = {"frames": 4, "fps": 8, "size": 16}


@pytest.fixture(scope="module")
def actions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("actions")
    write_action_clips(folder, videos=3, seconds=2)
    return folder


def config(actions, split, **keys):
    paths = dict.fromkeys(("train_path", "val_path", "test_path"), str(actions / "videos"))
    return DatasetConfig(**paths, annotation_path=str(actions / "splits"), raw=RAW, split=split, **keys)


def item(settings, index=0, cls=RawRecognitionMetaProcessor, seed=0):
    video_id, label = cls(settings)[index]
    return RawRecognitionAligner(settings)(
        video_id, RawVideoProcessor(settings)(video_id), label, ItemRandom(seed)
    )


@pytest.mark.parametrize(("fold", "test_group"), [(1, "g01"), (3, "g03")])
def test_a_fold_trains_and_tests_on_the_videos_of_its_lists(actions, fold, test_group):
    train = RawRecognitionMetaProcessor(config(actions, "train", fold=fold, train_clips=2))
    test = RawRecognitionMetaProcessor(config(actions, "test", fold=fold, test_clips=5))
    assert len(train) == 4 * 2 * 2 and len(test) == 4 * 1 * 5
    assert all(test_group not in path.name for (path, _), _ in train.data)
    assert all(test_group in path.name for (path, _), _ in test.data)
    assert {label for _, (label, _) in test.data} == set(range(len(CLASSES)))
    assert train.class_names == ["bar falls", "bar rises", "column falls", "column rises"]
    both = RawRecognitionSplitsMetaProcessor(config(actions, "test", fold=fold, test_clips=1))
    assert len(both) == 12 and both.folds == [1, 2, 3] and all(len(tags) == 3 for _, (_, tags) in both.data)


def test_clips_of_a_video_do_not_make_a_batch(actions):
    train = RawRecognitionMetaProcessor(config(actions, "train", train_clips=4))
    before = list(train.data)
    train.begin_epoch(np.random.default_rng(0))
    assert sorted(map(str, train.data)) == sorted(map(str, before)) and train.data != before


def test_test_clips_lie_evenly_and_have_three_crops(actions):
    settings = config(actions, "test", test_clips=3)
    made = [item(settings, index) for index in range(3)]
    assert all(one["video"].shape == (3, 3, 4, 16, 16) for one in made)
    assert not torch.equal(made[0]["video"], made[2]["video"])
    again = item(settings, 0, seed=9)
    assert torch.equal(made[0]["video"], again["video"])  # nothing is drawn
    middle = item(config(actions, "test", test_clips=3, test_crops=1), 0)
    assert torch.equal(middle["video"], made[0]["video"][1:2])


@pytest.mark.parametrize("path", golden_cases("gdt_data*.npz"))
def test_golden_gdt_data_clip_index_rows(path, monkeypatch):
    asked = []

    def frames(self, path, start_s):
        asked.append(start_s)
        return torch.zeros(1, 16, 16, 3, dtype=torch.uint8)

    monkeypatch.setattr(RawRecognitionAligner, "frames", frames)
    for n_frames, clip_size, index, n_clips, start, _ in load_golden(path)["clip_index_rows"]:
        raw = {"frames": int(clip_size), "fps": 1, "size": 16}  # a frame is a second
        settings = DatasetConfig(raw=raw, split="test", test_clips=int(n_clips), test_crops=1)
        file = RawFile(Path("x.avi"), VideoInfo(float(n_frames), 1.0, 16, 16, False))
        RawRecognitionAligner(settings)((file.path, int(index)), file, (0, [2]), ItemRandom(0))
        assert int(asked[-1] + 1e-9) == start


def test_released_test_clips_are_drawn(actions):
    settings = config(actions, "test", compat=True)
    first, second = (item(settings, 0, seed=seed)["video"] for seed in (0, 1))
    assert first.shape == (3, 3, 4, 16, 16) and not torch.equal(first, second)


def test_training_clips_are_drawn_anywhere_and_repeatable(actions):
    settings = config(actions, "train")
    first, second = (item(settings, 0, seed=seed) for seed in (0, 1))
    assert first["video"].shape == (3, 4, 16, 16) and not torch.equal(first["video"], second["video"])
    assert torch.equal(first["video"], item(settings, 0)["video"])
    assert first["targets"] == 0 and first["splits"].tolist() == [1]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"fold": 4}, ValueError, "dataset.fold=4: .* has the splits 1, 2, 3"),
        ({"train_path": "nowhere"}, FileNotFoundError, "dataset.train_path=nowhere: no such folder"),
        ({"annotation_path": "."}, FileNotFoundError, "trainlist01.txt"),
    ],
)
def test_wrong_settings_are_named(actions, change, error, message):
    settings = {
        "train_path": str(actions / "videos"),
        "annotation_path": str(actions / "splits"),
        "split": "train",
        "raw": RAW,
    }
    with pytest.raises(error, match=message):
        RawRecognitionMetaProcessor(DatasetConfig(**settings | change))


def test_videos_without_a_file_are_counted_and_named(actions, tmp_path):
    (tmp_path / "BarFalls").mkdir()
    name = "v_BarFalls_g02_c01.mkv"
    (tmp_path / "BarFalls" / name).symlink_to(actions / "videos/BarFalls" / name)
    settings = {
        "train_path": str(tmp_path),
        "annotation_path": str(actions / "splits"),
        "split": "train",
        "raw": RAW,
    }
    meta = RawRecognitionMetaProcessor(DatasetConfig(**settings, train_clips=1))
    assert len(meta) == 1 and len(meta.missing["have no video file"]) == 7
    with pytest.raises(MissingData, match="have no video file"):
        RawRecognitionMetaProcessor(DatasetConfig(**settings, on_missing="error"))


def as_folder(golden, name, folder: Path):
    """Empty video files and split lists as the release lists them."""
    (folder / "lists").mkdir()
    for key in (key for key in golden if key.startswith(f"{name}.split.")):
        (folder / "lists" / key.removeprefix(f"{name}.split.")).write_text(str(golden[key]))
    for file in golden[f"{name}.files"].tolist():
        path = folder / "videos" / Path(*Path(file).parts[-2:])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize("name", ["ucf101", "hmdb51"])
@pytest.mark.parametrize("path", golden_cases("release_gdt_eval*.npz"))
def test_golden_release_gdt_eval_items(path, name, tmp_path):
    golden = load_golden(path)
    as_folder(golden, name, tmp_path)
    for split in ("train", "test"):
        settings = {f"{split}_path": str(tmp_path / "videos"), "annotation_path": str(tmp_path / "lists")}
        meta = RawRecognitionMetaProcessor(DatasetConfig(**settings, split=split))
        paths = [Path(file).name for file in golden[f"{name}.{split}.paths"].tolist()]
        rows = golden[f"{name}.{split}.items_label_index_video_temporal_views_spatial"].tolist()
        labels = {file: row[0] for file, row in zip(paths, rows, strict=True)}
        assert {path.name: label for (path, _), (label, _) in meta.data} == labels
        clips = [(path.name, clip) for (path, clip), _ in meta.data]
        if split == "train":
            assert len(clips) == len(paths)
        else:  # the three crops of a clip are items of their own in the release
            assert sorted(clips * 3) == sorted(zip(paths, (row[3] for row in rows), strict=True))
