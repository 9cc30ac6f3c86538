"""Nearest neighbours and probe of sight and sound through predict, on the embedded activities."""

import json

import pytest

from mmpt_cli import predict
from tests.conftest import ROOT


def test_recognition_by_sight_and_sound_is_reported(toy_world, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    folder = toy_world / "actions"
    values = {
        "dataset.bert_name": toy_world / "model",
        "dataset.annotation_path": folder / "ucfTrainTestlist",
        "dataset.modalities.video.path": folder / "feat",
        "dataset.modalities.audio.path": folder / "audio",
        "eval.bootstrap": 20,
    }
    words = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    project = "projects/toy/gram/test_gdt_av_recognition.yaml"
    predict.main([project, "--untrained", "--output", str(tmp_path), "--modalities", "v,va", *words])
    found = json.loads((tmp_path / "untrained/results.json").read_text())
    assert {"v-nn-R1", "va-nn-R50", "va-probe-acc"} <= set(found["values"]) and "a-nn-R1" not in found[
        "values"
    ]
    assert found["values"]["v-probe-acc"] > 2 / 18  # random towers keep what features know
    assert found["baselines"]["chance"]["v-nn-R1"] == pytest.approx(1 / 18)
    assert found["facts"]["videos with"]["v"] == 108 > found["facts"]["videos with"]["va"]
    assert "| va-probe |" in (tmp_path / "untrained/results.md").read_text()
