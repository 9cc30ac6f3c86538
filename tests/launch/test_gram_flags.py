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
from mmpt.launch.gram_json import E2E, OURS
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
    "--resume": {},
    "--gradient_accumulation_steps 2": {
        "fairseq.dataset.batch_size": 4,
        "fairseq.optimization.update_freq": [2],
    },
    "--optim adamw": {},
    "--betas 0.8 0.99": {"fairseq.optimization.adam_betas": "(0.8, 0.99)"},
    "--weight_decay 0.02": {"fairseq.optimization.weight_decay": 0.02},
    "--scheduler warmup_cosine": {
        "fairseq.optimization.lr_scheduler": "warmup_share",
        "fairseq.optimization.max_update": 30,
        "fairseq.optimization.decay": "cosine",
    },
    "--warmup_ratio 0.2": {"fairseq.optimization.warmup_updates": 6},
    "--num_train_steps 0": {},
    "--seed 7": {"fairseq.common.seed": 7},
    "--fp16 false": {"fairseq.common.fp16": False, "fairseq.common.amp": False},
    "--remove_before_ckpt true": {"fairseq.checkpoint.keep_last_epochs": 1},
    "--contra_dim 256": {"model.contra_dim": 256},
    "--prompt x": {},
}
TESTING = {
    "--test_task ret%tv%tva": {"eval.modalities": ["tv", "tva"]},
    "--test_vision_sample_num 8": {"dataset.modalities.video.max_len": 8},
    "--test_audio_sample_num 3": {"dataset.modalities.audio.max_len": 3},
    "--test_batch_size 64": {"fairseq.dataset.batch_size": 64},
    "--itm_rerank_num 20": {"eval.rerank": 20},
    "--beam_size 3": {"gen_param.num_beams": 3},
    "--captioner_mode true": {"gen_param.draws": 1, "gen_param.top_k": 10},
    "--generate_nums 4 --captioner_mode true": {"gen_param.draws": 4, "gen_param.top_k": 10},
    "--generate_nums 4": {},
    "--checkpoint a.pt": {"fairseq.common_eval.path": "a.pt"},
    "--pretrain_dir d": {"fairseq.common_eval.path": "d/checkpoint_last.pt"},
    "--output_dir o": {"eval.save_path": "o/eval"},
    "--ret_bidirection_evaluation true": {},
}
RAW = """
includes: train.yaml
dataset:
  modalities:
    video: {path: v, raw: frames, max_len: 8}
    audio: {path: a, raw: sound, max_len: 1}
fairseq:
  optimization: {lr_scheduler: warmup_share, optimizer: grouped_adamw, max_update: 30}
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
    "--clip_lr 1e-6": {"model.learning_rates": {"visual": 1e-6}},
    "--new_params_name itm_head vision_encoder --new_lr 1e-3": {
        "model.learning_rates": {"itm_head": 1e-3, "vision_encoder": 1e-3}
    },
    "--new_lr 1e-3 --new_params_name itm_head": {"model.learning_rates": {"itm_head": 1e-3}},
    "--scheduler warmup_linear": {"fairseq.optimization.decay": "linear"},
    "--vision_encoder_type evaclip02_base": {"model.encoders.video.name": "evaclip02_base"},
    "--frame_embedding_type adaptive": {},
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
    (tmp_path / "test_train.yaml").write_text(TEST)
    (tmp_path / "raw2.yaml").write_text(RAW)
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


@pytest.mark.parametrize(
    "words, updates",
    [
        ("", 50 // 8 * 2.5),
        ("--jobtype local_small", 50 // 16 * 2.5),
        ("--set fairseq.dataset.batch_size=5", 50 // 5 * 2.5),
        ("--train_epoch 4", 50 // 8 * 4),
        ("--train_steps 9", 9),
    ],
)
def test_epochs_of_a_file_are_updates_of_the_items_that_are_there(words, updates, files, capsys, tmp_path):
    (tmp_path / "epochs.yaml").write_text(RAW.replace("max_update: 30", "epochs: 2.5"))
    found = settings(capsys, "epochs.yaml", *words.split())
    assert found["fairseq.optimization.max_update"] == int(updates)
    assert found["fairseq.optimization.epochs"] is None
    assert not {"fairseq.optimization.max_update"} & set(settings(capsys, "raw.yaml"))


def test_epochs_of_items_that_are_not_here_yet_are_shown_as_such(files, capsys, tmp_path):
    (tmp_path / "epochs.yaml").write_text(RAW.replace("max_update: 30", "epochs: 2.5"))
    (tmp_path / "train.json").unlink()
    assert locallaunch.main(["epochs.yaml", "--dryrun"]) == 0
    shown = capsys.readouterr().out
    assert "--epochs 2.5" in shown and "counted when train.json is there" in shown


def test_a_folder_of_the_release_gives_its_last_checkpoint(files, capsys, tmp_path):
    (tmp_path / "d" / "ckpt").mkdir(parents=True)
    for step in (900, 1000):
        (tmp_path / "d" / "ckpt" / f"model_step_{step}.pt").touch()
    found = settings(capsys, "test.yaml", "--pretrain_dir", "d")
    assert found == {"fairseq.common_eval.path": "d/ckpt/model_step_1000.pt"}


def test_every_flag_that_changes_a_file_is_tried_and_the_release_has_89():
    tried = (*TRAINING, *TESTING, *RAW_TRAINING, *RAW_TESTING)
    names = {flag.split()[0].removeprefix("--") for flag in tried}
    assert names - set(gram_flags.WITHOUT_EFFECT) == set(gram_flags.FLAGS)
    parts = (gram_flags.FLAGS, gram_flags.JOBS, gram_flags.INSTEAD, gram_flags.WITHOUT_EFFECT)
    ours = {"frozen_audio"}  # a key of theirs that is no flag
    assert len({*parts[0], *parts[1], *parts[2], *parts[3]} - ours) == sum(map(len, parts)) - 1 == 89


def test_a_flag_without_effect_in_the_release_says_so(files, capsys):
    assert locallaunch.main(["train.yaml", "--dryrun", "--use_flash_attn", "true"]) == 0
    assert "--use_flash_attn had no effect in the release, and has none here" in capsys.readouterr().out


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
        ("--zero_shot true", "starts from no checkpoint"),
        ("--first_eval", "starts from no checkpoint"),
        ("--bf16 true", "--fp16 false"),
        ("--local-rank 1", "--nproc N"),
        ("--optim adam", "fairseq.optimization.optimizer=adam"),
        ("--clip_lr 1e-6", "optimizer: grouped_adamw"),
        ("--scheduler step", "expected warmup_linear or warmup_cosine"),
        ("--gradient_accumulation_steps 3", "not a multiple of 3"),
        ("--frame_embedding_type none", "adaptive"),
        ("--save_best false", "always kept"),
        ("--train_task ret%tvx", "no modality starts with 'x'"),
        ("--train_task cap%tva", "cap needs a model that writes, model_cls: GRAM"),
        ("--config x.json", "leave out train.yaml"),
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


def launched(capsys, *words):
    """What each shown command runs and sets, in order."""
    assert locallaunch.main([*words, "--dryrun"]) == 0, capsys.readouterr().err
    found = []
    for line in capsys.readouterr().out.splitlines():
        if line.startswith("launching "):
            said = shlex.split(line)
            file = next(word for word in said if word.endswith(".yaml"))
            texts = [word for before, word in pairwise(said) if before == "--set"]
            load_config(file, texts)
            found.append((file, "predict.py" in line, dict(text.split("=", 1) for text in texts)))
    return found


def test_first_eval_tests_what_training_starts_from_before_it_trains(files, capsys):
    (test, is_test, told), (train, is_test_too, _) = launched(
        capsys, "train.yaml", "--first_eval", "true", "--checkpoint", "a.pt", "--learning_rate", "2e-5"
    )
    assert (test, is_test, train, is_test_too) == ("test_train.yaml", True, "train.yaml", False)
    assert told == {"fairseq.common_eval.path": '"a.pt"', "eval.save_path": '"runs/x/first_eval/eval"'}


@pytest.mark.parametrize("words", ["--mode testing", "--zero_shot"])
def test_testing_and_zero_shot_run_the_test_file_alone(words, files, capsys):
    ((file, is_test, told),) = launched(capsys, "train.yaml", *words.split(), "--checkpoint", "a.pt")
    assert (file, is_test, told["fairseq.common_eval.path"]) == ("test_train.yaml", True, '"a.pt"')


def test_mode_testing_of_a_test_file_is_that_file(files, capsys):
    assert [file for file, *_ in launched(capsys, "test.yaml", "--mode", "testing")] == ["test.yaml"]


def test_a_training_file_without_a_test_file_beside_it_says_which_it_looked_for(files, capsys):
    assert locallaunch.main(["raw2.yaml", "--dryrun", "--mode", "testing"]) == 2
    assert "test_raw2.yaml, which is not there" in capsys.readouterr().err


SET = {
    "type": "annoindexed",
    "name": "msrvtt_ret",
    "vision": "data/msrvtt/videos",
    "audio": "data/msrvtt/audios",
}
SET |= {
    "vision_format": "video_rawvideo",
    "vision_transforms": "crop_flip",
    "audio_sample_num": 1,
    "n_workers": 8,
}
TRAIN_SET = SET | {"training": True, "txt": "data/msrvtt/unique_descs_ret_train.json", "task": "ret%tv%ta"}
TRAIN_SET |= {"vision_sample_num": 4, "batch_size": 32, "steps": 1124}
TEST_SET = SET | {"training": False, "txt": "data/msrvtt/descs_ret_test.json", "task": "ret%tvas"}
TEST_SET |= {"vision_sample_num": 8, "batch_size": 64}
MSRVTT = {
    "run_cfg": {"default": "./config/gram/default_run_cfg.json", "learning_rate": 2e-5, "seed": 50},
    "model_cfg": {"default": "./config/gram/default_model_cfg.json", "itm_ratio": 0.1, "max_caption_len": 40},
    "data_cfg": {"train": [TRAIN_SET], "val": [TEST_SET]},
}
ALIKE = ("train_path", "val_path", "test_path", "modalities", "max_len", "on_missing")


@pytest.fixture
def released_json(tmp_path, monkeypatch):
    """A configuration as the release has them."""
    monkeypatch.chdir(ROOT)
    path = tmp_path / "retrieval-msrvtt.json"
    path.write_text(json.dumps(MSRVTT))
    return str(path)


def test_a_json_configuration_of_the_release_trains_and_tests_as_our_file_of_it(released_json, capsys):
    flags = "--checkpointing true --first_eval true --save_best true --pretrain_dir p --output_dir o"
    jobs = launched(capsys, "--config", released_json, *flags.split())
    assert [is_test for _, is_test, _ in jobs] == [True, False]
    for (file, _, told), ours in zip(jobs, ("test_vtt", "vtt"), strict=True):
        read = load_config(file, [f"{key}={value}" for key, value in told.items()])
        known = load_config(f"projects/retri/gram/e2e/{ours}.yaml")
        for key in ALIKE:
            assert getattr(read.dataset, key) == getattr(known.dataset, key), key
        if ours == "vtt":
            assert read.fairseq["optimization"] == known.fairseq["optimization"]
            assert read.loss == known.loss and read.model == known.model
            assert read.trainer.save_dir == "o" and read.trainer.restore_file == "p/checkpoint_last.pt"
        else:
            assert read.eval.save_path == "o/first_eval/eval" and read.eval.modalities == ["tvas"]


def test_a_flag_has_more_to_say_than_the_json_file(released_json, capsys):
    ((_, _, told),) = launched(capsys, "--config", released_json, "--learning_rate", "1e-4")
    assert told["fairseq.optimization.lr"] == "[0.0001]"


PICTURES = {"name": "cc4m", "txt": "data/cc4m/annotations.json", "vision": "data/cc4m/images"}
PICTURES |= {"vision_format": "image_rawimage", "task": "ret%tv_cap%tv", "batch_size": 64, "steps": 876}


def test_a_json_configuration_of_several_sets_mixes_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    path = tmp_path / "pretrain.json"
    path.write_text(json.dumps(MSRVTT | {"data_cfg": {"train": [PICTURES, TRAIN_SET]}}))
    ((file, _, told),) = launched(capsys, "--config", str(path), "--nproc", "2")
    read = load_config(file, [f"{key}={value}" for key, value in told.items()])
    assert read.task == "MixedTask" and read.trainer.max_update == 2000
    assert {name: entry["updates"] for name, entry in read.mix.items()} == {"cc4m": 876, "msrvtt_ret": 1124}
    pictures, videos = (load_config(one["project"], one["settings"]) for one in read.mix.values())
    assert (pictures.trainer.batch_size, videos.trainer.batch_size) == (32, 16)
    assert list(pictures.dataset.modalities) == ["video"] and len(videos.dataset.modalities) == 2
    assert [part["loss_cls"] for part in pictures.loss["losses"]] == ["GRAMLoss", "CaptionLoss"]
    assert read.dataset.modalities["video"]["max_len"] == 4 and "audio" in read.dataset.modalities
    assert locallaunch.main(["--config", str(path), "--dryrun", "--train_epoch", "2"]) == 2
    assert "--train_epoch is for a training on one set; there are 2" in capsys.readouterr().err


def test_a_json_file_that_is_not_there_names_the_project_file_of_ours(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert locallaunch.main(["--config", "config/gram/finetune_cfg/retrieval-didemo.json", "--dryrun"]) == 2
    assert "projects/retri/gram/e2e/didemo.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change, message",
    [
        ({"data_cfg": {}}, "neither a training nor a validation set"),
        ({"data_cfg": {"val": [{"task": "ret%tv"}]}}, "has no txt"),
        ({"data_cfg": {"val": [TEST_SET | {"audio": None}]}}, "without a folder audio"),
        (
            {"data_cfg": {"val": [TEST_SET | {"vision_format": "video_feats"}]}},
            "projects/retri/gram/vtt.yaml",
        ),
        ({"data_cfg": []}, "expected run_cfg, model_cfg and data_cfg"),
    ],
)
def test_a_json_file_that_cannot_be_run_says_why(change, message, released_json, capsys):
    with open(released_json, "w") as file:
        json.dump(MSRVTT | change, file)
    assert locallaunch.main(["--config", released_json, "--dryrun"]) == 2
    assert message in capsys.readouterr().err


def test_every_json_file_of_the_release_has_a_project_file_of_ours():
    assert len(OURS) == 15
    for name in OURS.values():
        load_config(ROOT / f"{E2E}/{name}.yaml")
