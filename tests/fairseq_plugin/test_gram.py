"""N modalities through fairseq: one process in the quick suite, two and a resumed run marked slow."""

import json
import sys

import pytest
import torch

from mmpt.checkpoints.weights import read_state_dict
from tests.fairseq_plugin.runs import launch

UPDATES = 3
WRITER = """
includes: projects/toy/gram/gram.yaml
dataset:
  bert_name: {world}/model
  train_path: {world}/clips/train.json
  max_video_len: 8
  mask_captions: 0.6
  modalities:
    video: {{path: {world}/how2/feat}}
    audio: {{path: {world}/how2/audio}}
fairseq:
  dataset: {{batch_size: 8}}
loss:
  loss_cls: SumLoss
  losses: [{{loss_cls: GRAMLoss}}, {{loss_cls: CaptionLoss, conditions: [tva, tv]}}]
"""
GRAM = ("model.init_from=null", "loss.dam_warmup=2")


def command(world, run, *settings, project="gram", clips="train", jobtype="local_single"):
    values = {
        "dataset.bert_name": world / "model",
        "dataset.train_path": world / f"clips/{clips}.json",
        "dataset.modalities.video.path": world / "how2/feat",
        "dataset.modalities.audio.path": world / "how2/audio",
        "fairseq.checkpoint.save_dir": run,
        "fairseq.checkpoint.save_interval_updates": 1,
        "fairseq.optimization.max_update": UPDATES,
        "fairseq.optimization.total_num_update": UPDATES,
        "fairseq.optimization.warmup_updates": 1,
        "fairseq.dataset.batch_size": 8 if jobtype == "local_small" else 16,
        "fairseq.dataset.disable_validation": "true",
        "fairseq.common.log_interval": 1,
    }
    words = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    words += [word for setting in settings for word in ("--set", setting)]
    return [
        sys.executable,
        "locallaunch.py",
        f"projects/toy/gram/{project}.yaml",
        "--jobtype",
        jobtype,
        "--cpu",
        *words,
    ]


def logged(output):
    return [
        json.loads(line.split("| train_inner |")[1])
        for line in output.splitlines()
        if "| train_inner |" in line
    ]


def test_gram_trains_with_volume_and_matching_loss(toy_world, tmp_path):
    values = logged(launch(command(toy_world, tmp_path, *GRAM)))
    assert len(values) == UPDATES and {"a2d", "d2a", "matching", "temperature"} <= set(values[0])
    assert float(values[0]["matching"]) == 0 < float(values[-1]["matching"])  # it warms up
    weights = read_state_dict(tmp_path / "checkpoint_last.pt")
    assert {"video_encoder", "audio_encoder", "text_encoder", "matcher", "condition"} <= {
        name.split(".")[0] for name in weights
    }


def test_gdt_trains_on_sights_and_sounds_without_captions(toy_world, tmp_path):
    values = logged(launch(command(toy_world, tmp_path, project="gdt_av", clips="videos_train")))
    assert len(values) == UPDATES and "top1_first" in values[0]
    assert not any(
        name.startswith("text_encoder") for name in read_state_dict(tmp_path / "checkpoint_last.pt")
    )


STICA = {"project": "../stica/sequences", "clips": "videos_train"}
MAPS = (
    "dataset.modalities.video={path: %s/how2/maps, width: 32, max_len: 16, map: [4, 4]}",
    "fairseq.dataset.batch_size=4",
)


@pytest.mark.slow
@pytest.mark.parametrize("jobtype", ["local_single", "local_small"])
@pytest.mark.parametrize("project", ["gram", "sequences", "maps"])
def test_a_resumed_run_ends_where_an_undisturbed_one_ends(toy_world, tmp_path, project, jobtype):
    settings = {"gram": GRAM, "sequences": (), "maps": (MAPS[0] % toy_world, MAPS[1])}[project]
    place = {"gram": {}, "sequences": STICA, "maps": {**STICA, "project": "../stica/maps"}}[project] | {
        "jobtype": jobtype
    }
    launch(command(toy_world, tmp_path / "whole", *settings, **place))
    launch(command(toy_world, tmp_path / "parts", *settings, "fairseq.optimization.max_update=2", **place))
    launch(command(toy_world, tmp_path / "parts", *settings, **place))
    whole, parts = (read_state_dict(tmp_path / run / "checkpoint_last.pt") for run in ("whole", "parts"))
    assert not [name for name in whole if not torch.equal(whole[name], parts[name])]


@pytest.mark.parametrize("jobtype", ["local_single", pytest.param("local_small", marks=pytest.mark.slow)])
def test_sets_with_other_modalities_batches_and_losses_train_one_model(toy_world, tmp_path, jobtype):
    """Clips with pictures and sound that are found and written about, and sounds that are written about."""
    heard = (
        "dataset.modalities.video=null",
        "loss={loss_cls: CaptionLoss, conditions: [ta]}",
        "fairseq.dataset.batch_size=4",
        "model.learnable_temperature=false",
    )
    (tmp_path / "set.yaml").write_text(WRITER.format(world=toy_world))
    sets = {"seen": (2, ()), "heard": (1, heard)}
    mix = {
        name: {"project": str(tmp_path / "set.yaml"), "updates": share, "settings": list(settings)}
        for name, (share, settings) in sets.items()
    }
    settings = (
        "model.model_cls=GRAM",
        "model.contra_dim=16",
        "dataset.max_video_len=8",
        "model.learnable_temperature=true",
        "task=MixedTask",
        f"mix={json.dumps(mix)}",
        "fairseq.optimization.max_update=6",
    )
    output = launch(command(toy_world, tmp_path / "run", *settings, *GRAM[:1], jobtype=jobtype))
    terms = [{name for name in line if "/" in name} for line in logged(output)]
    assert len(terms) == 6 and all(len({name.split("/")[0] for name in line}) == 1 for line in terms)
    assert {name for line in terms for name in line} == {
        "seen/GRAMLoss",
        "seen/GRAMLoss/a2d",
        "seen/GRAMLoss/d2a",
        "seen/CaptionLoss",
        "seen/CaptionLoss/caption",
        "heard/caption",
    }
