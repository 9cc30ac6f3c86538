"""Training as a call; the trainer is replaced by a small program."""

import json
import sys

import pytest

import mmpt
from mmpt.api import TrainingFailed
from mmpt.launch import local

LINE = {"tag": "train_inner", "update": 1, "loss": 2.0}


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return {
        "fairseq": {"checkpoint": {"save_dir": "run"}, "common": {"cpu": True}},
        "dataset": {"train_path": "x"},
        "model": {"model_cls": "MMFusionSeparate"},
        "loss": {"loss_cls": "MMContraLoss"},
    }


def trainer(monkeypatch, code):
    command = local.Command(["train"], [sys.executable, "-c", code])
    monkeypatch.setattr(local.LocalJob, "train_command", lambda self, topology: command)


def test_a_run_tells_its_progress_and_keeps_its_metrics(project, monkeypatch):
    trainer(monkeypatch, f"open('run/metrics.jsonl', 'a').write({json.dumps(LINE)!r} + chr(10)); print('hi')")
    told = []
    run = mmpt.train(project, log="run.log", progress=told.append)
    assert told == list(run.metrics("train_inner")) == [LINE]
    assert run.log.read_text().startswith("[JobLauncher] job_key local\nlaunching train\n")
    assert run.log.read_text().endswith("hi\n")
    assert run.checkpoint.name == "checkpoint_last.pt" and str(run.folder) == "run"


def test_a_failure_carries_exit_code_and_the_end_of_the_log(project, monkeypatch):
    trainer(monkeypatch, "import sys; sys.exit('no data')")
    with pytest.raises(TrainingFailed, match="no data") as error:
        mmpt.train(project, log="run.log")
    assert error.value.exit_code == 1


def test_a_config_is_written_where_the_trainer_can_read_it(project, monkeypatch):
    trainer(monkeypatch, "pass")
    mmpt.train(project)
    assert mmpt.load_config("run/project.yaml").loss["loss_cls"] == "MMContraLoss"


def test_a_missing_run_folder_is_named():
    with pytest.raises(mmpt.config.ConfigError, match="save_dir is missing"):
        mmpt.train({"loss": {"loss_cls": "MMContraLoss"}})


def test_the_package_is_instant_and_offers_its_calls():
    assert {"check", "train", "evaluate", "load_config", "MMPTModel"} <= set(dir(mmpt))
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        mmpt.trian  # noqa: B018
