"""Labelled videos with several modalities."""

import pytest
import torch

from mmpt.config import load_config
from mmpt.datasets import build_dataset
from mmpt.processors import MissingData
from tests.conftest import ROOT


@pytest.fixture
def config(toy_world, monkeypatch):
    monkeypatch.chdir(ROOT)

    def read(*changes):
        folder = toy_world / "actions"
        paths = [
            f"dataset.bert_name={toy_world / 'model'}",
            f"dataset.annotation_path={folder / 'ucfTrainTestlist'}",
        ]
        paths += [
            f"dataset.modalities.video.path={folder / 'feat'}",
            f"dataset.modalities.audio.path={folder / 'audio'}",
        ]
        return load_config("projects/toy/gram/test_gdt_av_recognition.yaml", [*paths, *changes])

    return read


def test_a_batch_holds_every_modality_with_class_and_splits(config):
    data = build_dataset(config(), "test")
    batch = data.collate([data[i] for i in range(4)])
    assert (
        len(data) == 108
        and batch["video_feats"].shape == (4, 16, 512)
        and batch["audio_feats"].shape == (4, 16, 128)
    )
    assert batch["splits"].shape == (4, 3) and batch["label"].tolist() == [0, 0, 0, 0]


def test_videos_without_sound_stay_masked_or_are_left_out(config):
    masked = build_dataset(config(), "test")
    silent = [i for i in range(len(masked)) if not masked[i]["present"][1]]
    dropped = build_dataset(config("dataset.on_missing=drop"), "test")
    assert silent and len(dropped) == 108 - len(silent)
    assert not torch.stack([masked[i]["audio_masks"] for i in silent]).any()


def test_missing_features_can_be_refused(config):
    with pytest.raises(MissingData, match="have no features"):
        build_dataset(config("dataset.on_missing=error"), "test")
