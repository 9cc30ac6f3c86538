"""Training runs as commands, and what they leave behind."""

import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import torch

from mmpt.checkpoints.weights import read_state_dict
from tests.conftest import ROOT

UPDATES = 8  # epochs of 6 batches: a run ends in the middle of its second


def command(world: Path, run: Path, *settings: str, jobtype: str = "local_single") -> list[str]:
    values = {
        "dataset.bert_name": world / "model",
        "dataset.train_path": world / "how2/how2_s3d_train.lst",
        "dataset.val_path": world / "how2/how2_s3d_val.lst",
        "dataset.vfeat_dir": world / "how2/feat",
        "dataset.tfeat_dir": f"{world}/how2/feat/narration.",
        "dataset.num_video_per_batch": 4 if jobtype == "local_small" else 8,
        "fairseq.checkpoint.save_dir": run,
        "fairseq.checkpoint.restore_file": "null",
        "fairseq.checkpoint.save_interval_updates": 1,
        "fairseq.optimization.max_update": UPDATES,
        "fairseq.optimization.total_num_update": UPDATES,
        "fairseq.optimization.warmup_updates": 2,
        "fairseq.dataset.disable_validation": "true",
        "fairseq.common.log_interval": 1,
    }
    words = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    words += [word for setting in settings for word in ("--set", setting)]
    return [
        sys.executable,
        "locallaunch.py",
        "projects/toy/norton.yaml",
        "--jobtype",
        jobtype,
        "--cpu",
        *words,
    ]


def launch(words: list[str], expect: int = 0) -> str:
    done = subprocess.run(
        words,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,  # of a test that hangs; on a busy machine a start alone takes minutes
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    output = done.stdout + done.stderr
    assert done.returncode == expect, output[-3000:]
    return output


def weights(run: Path, name: str = "checkpoint_last.pt") -> dict[str, torch.Tensor]:
    return read_state_dict(run / name)


def stored(path: Path) -> dict:
    """A whole fairseq checkpoint."""
    with torch.serialization.safe_globals([Namespace]):
        return torch.load(path, map_location="cpu", weights_only=True)


def assert_same_weights(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different, different[:5]


def logged(output: str) -> list[dict]:
    return [
        json.loads(line.split("| train_inner |")[1])
        for line in output.splitlines()
        if "| train_inner |" in line
    ]
