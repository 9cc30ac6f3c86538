"""GRAM with four modalities trains through fairseq: one process in the quick suite, two and a resumed run marked slow."""

import json

import pytest
import torch

from mmpt.models.checkpoint import read_state_dict
from tests.fairseq_plugin.test_training import launch

UPDATES = 3
MODALITIES = {"video": ("feat", 512), "audio": ("audio", 128)}


def command(world, run, *settings, jobtype="local_single"):
    import sys

    values = {
        "dataset.bert_name": world / "model",
        "dataset.train_path": world / "clips/train.json",
        "dataset.val_path": world / "clips/val.json",
        **{f"dataset.modalities.{name}.path": world / "how2" / folder for name, (folder, _) in MODALITIES.items()},
        "model.init_from": "null",
        "loss.dam_warmup": 2,
        "fairseq.checkpoint.save_dir": run,
        "fairseq.checkpoint.save_interval_updates": 1,
        "fairseq.optimization.max_update": UPDATES,
        "fairseq.optimization.total_num_update": UPDATES,
        "fairseq.optimization.warmup_updates": 1,
        "fairseq.dataset.batch_size": 16 // (2 if jobtype == "local_small" else 1),
        "fairseq.dataset.disable_validation": "true",
        "fairseq.common.log_interval": 1,
    }
    words = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    words += [word for setting in settings for word in ("--set", setting)]
    return [sys.executable, "locallaunch.py", "projects/toy/gram/gram.yaml", "--jobtype", jobtype, "--cpu", *words]


def test_it_trains_with_volume_and_matching_loss(toy_world, tmp_path):
    output = launch(command(toy_world, tmp_path))
    values = [json.loads(line.split("| train_inner |")[1]) for line in output.splitlines() if "| train_inner |" in line]
    assert len(values) == UPDATES and {"a2d", "d2a", "matching", "temperature"} <= set(values[0])
    assert float(values[0]["matching"]) == 0 < float(values[-1]["matching"])  # it warms up
    weights = read_state_dict(tmp_path / "checkpoint_last.pt")
    assert {"video_encoder", "audio_encoder", "text_encoder", "matcher", "condition"} <= {name.split(".")[0] for name in weights}


@pytest.mark.slow
@pytest.mark.parametrize("jobtype", ["local_single", "local_small"])
def test_a_resumed_run_ends_where_an_undisturbed_one_ends(toy_world, tmp_path, jobtype):
    launch(command(toy_world, tmp_path / "whole", jobtype=jobtype))
    launch(command(toy_world, tmp_path / "parts", "fairseq.optimization.max_update=2", jobtype=jobtype))
    launch(command(toy_world, tmp_path / "parts", jobtype=jobtype))
    whole, parts = (read_state_dict(tmp_path / run / "checkpoint_last.pt") for run in ("whole", "parts"))
    assert not [name for name in whole if not torch.equal(whole[name], parts[name])]
