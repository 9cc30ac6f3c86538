"""Every flag of the GRAM release, as its users type it."""

from __future__ import annotations

import json
import shlex
from itertools import pairwise

import pytest

import locallaunch
from mmpt.config import ConfigError, load_config
from mmpt.launch import gram_flags
from mmpt.launch.gram_flags import parse_task
from tests.conftest import ROOT

TRAIN = """
task_type: local_single
dataset:
  train_path: train.json
  modalities:
    video: {path: v, max_len: 32}
    audio: {path: a, max_len: 32}
    subtitle: {max_len: 40}
fairseq:
  common: {cpu: true}
  dataset: {batch_size: 8}
  optimization: {lr: [1.0e-4], max_epoch: 5}
  checkpoint: {save_dir: runs/x}
model: {model_cls: MMGram}
loss: {loss_cls: GRAMLoss}
"""
TEST = TRAIN.replace("local_single", "local_predict").replace(
    "dataset:\n  train_path: train.json", "dataset:\n  split: test"
)
RESETS = {f"fairseq.checkpoint.reset_{what}": True for what in ("optimizer", "dataloader", "meters")}
TRAINING = {
    "--train_task ret%tva": {"loss.modalities": ["video", "audio"]},
    "--train_task ret%tv%ts": {"loss.modalities": ["video", "subtitle"]},
    "--train_vision_sample_num 4": {"dataset.modalities.video.max_len": 4},
    "--train_audio_sample_num 2": {"dataset.modalities.audio.max_len": 2},
    "--train_batch_size 16": {"fairseq.dataset.batch_size": 16},
    "--train_epoch 4": {"fairseq.optimization.max_epoch": 4},
    "--train_epoch 2.5": {
        "fairseq.optimization.max_update": 15,
        "fairseq.optimization.total_num_update": 15,
    },  # 50 items by 8
    "--train_steps 70": {"fairseq.optimization.max_update": 70, "fairseq.optimization.total_num_update": 70},
    "--learning_rate 2e-5": {"fairseq.optimization.lr": [2e-5]},
    "--valid_freq 10": {
        "fairseq.dataset.validate_interval_updates": 3,
        "fairseq.dataset.disable_validation": False,
    },  # 30 updates
    "--checkpointing true": {"model.activation_checkpointing": True},
    "--frozen_vision true": {"model.frozen": ["video"]},
    "--frozen_vision false": {"model.frozen": []},
    "--frozen_audio true": {"model.frozen": ["audio"]},
    "--itm_ratio 0.2": {"loss.dam_weight": 0.2},
    "--checkpoint a.pt": {"fairseq.checkpoint.restore_file": "a.pt", **RESETS},
    "--pretrain_dir d": {"fairseq.checkpoint.restore_file": "d/checkpoint_last.pt", **RESETS},
    "--output_dir o": {"fairseq.checkpoint.save_dir": "o", "eval.save_path": "o/eval"},
    "--save_best true": {},
    "--resume true": {},
    "--mode training": {},
}
TESTING = {
    "--test_task ret%tv%tva": {"eval.modalities": ["tv", "tva"]},
    "--test_vision_sample_num 8": {"dataset.modalities.video.max_len": 8},
    "--test_audio_sample_num 3": {"dataset.modalities.audio.max_len": 3},
    "--test_batch_size 64": {"fairseq.dataset.batch_size": 64},
    "--itm_rerank_num 20": {"eval.rerank": 20},
    "--beam_size 3": {"gen_param.num_beams": 3},
    "--checkpoint a.pt": {"fairseq.common_eval.path": "a.pt"},
    "--pretrain_dir d": {"fairseq.common_eval.path": "d/checkpoint_last.pt"},
    "--output_dir o": {"eval.save_path": "o/eval"},
    "--mode testing": {},
}
RAW = """
includes: train.yaml
dataset:
  modalities:
    video: {path: v, raw: frames, max_len: 8}
    audio: {path: a, raw: sound, max_len: 1}
fairseq:
  optimization: {lr_scheduler: warmup_share}
model: {model_cls: GRAM, learnable_temperature: true}
loss:
  loss_cls: SumLoss
  losses: [{loss_cls: GRAMLoss, dam_weight: 0.1}]
"""
FOUND = {"loss_cls": "GRAMLoss", "dam_weight": 0.1}
CAPTIONS = {"loss_cls": "CaptionLoss", "conditions": ["tva", "tv"]}
SUM = {"loss.loss_cls": "SumLoss"}
RAW_TRAINING = {
    "--train_task ret%tva": {"loss.losses": [FOUND | {"modalities": ["video", "audio"]}]},
    "--train_task ret%tv_cap%tva%tv": SUM
    | {"loss.losses": [FOUND | {"modalities": ["video"]}, CAPTIONS], "dataset.mask_captions": 0.6},
    "--train_task qa%ta": SUM
    | {
        "loss.losses": [{"loss_cls": "AnswerLoss", "conditions": ["ta"]}],
        "model.learnable_temperature": False,
    },
    "--itm_ratio 0.2": {"loss.losses": [FOUND | {"dam_weight": 0.2}]},
    "--train_epoch 4": {"fairseq.optimization.max_update": 24},
    "--vision_transforms crop_flip": {"dataset.modalities.video.transform": "crop_flip"},
    "--vision_resolution 336": {"dataset.modalities.video.size": 336, "model.encoders.video.image_size": 336},
}
RAW_TESTING = {
    "--test_task ret%tv%tva": {"eval.modalities": ["tv", "tva"]},
    "--test_task cap%tva": {
        "predictor": "CaptionPredictor",
        "metric": "NLGMetric",
        "eval.modalities": ["tva"],
        "eval.rerank": 0,
    },
    "--test_task qa%tva": {
        "predictor": "AnswerPredictor",
        "metric": "AnswerMetric",
        "eval.modalities": ["tva"],
        "eval.rerank": 0,
    },
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A training and a test file, and fifty items."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.yaml").write_text(TRAIN)
    (tmp_path / "test.yaml").write_text(TEST)
    (tmp_path / "raw.yaml").write_text(RAW)
    (tmp_path / "test_raw.yaml").write_text(RAW.replace("train.yaml", "test.yaml"))
    (tmp_path / "train.json").write_text(
        json.dumps([{"clip_id": f"c{i % 50}", "desc": "x"} for i in range(60)])
    )


def settings(capsys, file, *words):
    """What the shown command line sets."""
    assert locallaunch.main([file, "--dryrun", *words]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("launching "))
    words = shlex.split(line)
    texts = [word for before, word in pairwise(words) if before == "--set"]
    load_config(file, texts)  # what is shown can be read
    return {text.split("=", 1)[0]: json.loads(text.split("=", 1)[1]) for text in texts}


@pytest.mark.parametrize("flag", TRAINING)
def test_a_flag_of_training_changes_the_file(flag, files, capsys):
    assert settings(capsys, "train.yaml", *flag.split()) == TRAINING[flag]


@pytest.mark.parametrize("flag", TESTING)
def test_a_flag_of_testing_changes_the_file(flag, files, capsys):
    assert settings(capsys, "test.yaml", *flag.split()) == TESTING[flag]


@pytest.mark.parametrize("flag", RAW_TRAINING)
def test_a_flag_changes_a_training_from_files(flag, files, capsys):
    assert settings(capsys, "raw.yaml", *flag.split()) == RAW_TRAINING[flag]


@pytest.mark.parametrize("flag", RAW_TESTING)
def test_a_flag_changes_a_test_from_files(flag, files, capsys):
    assert settings(capsys, "test_raw.yaml", *flag.split()) == RAW_TESTING[flag]


def test_a_folder_of_the_release_gives_its_last_checkpoint(files, capsys, tmp_path):
    (tmp_path / "d" / "ckpt").mkdir(parents=True)
    for step in (900, 1000):
        (tmp_path / "d" / "ckpt" / f"model_step_{step}.pt").touch()
    found = settings(capsys, "test.yaml", "--pretrain_dir", "d")
    assert found == {"fairseq.common_eval.path": "d/ckpt/model_step_1000.pt"}


def test_every_flag_is_tried():
    tried = (*TRAINING, *TESTING, *RAW_TRAINING, *RAW_TESTING)
    assert {flag.split()[0].removeprefix("--") for flag in tried} == set(gram_flags.FLAGS)


def test_batches_are_those_of_all_processes_together(files, capsys):
    found = settings(capsys, "train.yaml", "--train_batch_size", "16", "--jobtype", "local_small")
    assert found == {"fairseq.dataset.batch_size": 8}
    assert (
        locallaunch.main(["train.yaml", "--dryrun", "--train_batch_size", "15", "--jobtype", "local_small"])
        == 2
    )
    assert "not a multiple of 2" in capsys.readouterr().err


def test_a_set_of_the_same_key_has_the_last_word(files, capsys):
    assert settings(capsys, "train.yaml", "--set", "loss.dam_weight=0.5", "--itm_ratio", "0.2") == {
        "loss.dam_weight": 0.5
    }


def test_a_flag_of_the_other_kind_of_job_is_said_to_change_nothing(files, capsys):
    assert locallaunch.main(["train.yaml", "--dryrun", "--test_task", "ret%tva"]) == 0
    assert "--test_task is for testing jobs and changes nothing in train.yaml" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, message",
    [
        ("--vision_transforms crop_flip", "augment and scale frames before extraction"),
        ("--zero_shot true", "test_*_zs.yaml"),
        ("--first_eval true", "eval.valid_project"),
        ("--save_best false", "always kept"),
        ("--train_task ret%tvx", "no modality starts with 'x'"),
        ("--train_task cap%tva", "cap needs a model that writes, model_cls: GRAM"),
        ("--mode testing", "train.yaml is a file for training"),
        ("--train_task sing%tva", "unknown kind 'sing'"),
        ("--train_task ret%va", "expected conditions such as tv"),
        ("--train_task ret", "got none"),
    ],
)
def test_what_has_no_meaning_is_refused_with_the_way_to_go(words, message, files, capsys):
    assert locallaunch.main(["train.yaml", "--dryrun", *words.split()]) == 2
    assert message in capsys.readouterr().err


def test_the_task_string_is_parsed_by_its_grammar():
    assert parse_task("ret%tva") == [("ret", ["tva"])]
    assert parse_task("ret%tv%tva_cap%tvas") == [("ret", ["tv", "tva"]), ("cap", ["tvas"])]
    with pytest.raises(ConfigError, match="tvv"):
        parse_task("ret%tvv")


def test_the_flags_reach_a_shipped_file(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = [
        "--train_task",
        "ret%tvas",
        "--train_vision_sample_num",
        "4",
        "--train_audio_sample_num",
        "1",
        "--learning_rate",
        "2e-5",
    ]
    found = settings(capsys, "projects/retri/gram/vtt.yaml", *words)
    assert (
        found["loss.modalities"] == ["video", "audio", "subtitle"]
        and found["dataset.modalities.audio.max_len"] == 1
    )
