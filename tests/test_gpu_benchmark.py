"""The script that measures on a GPU can be tried, and is harmless, where there is none."""

import json
import os
import subprocess
import sys

import pytest
import torch

from tests.conftest import ROOT
from tests.ops.kernels import KERNELS


def run(*arguments):
    command = [sys.executable, "benchmarks/gpu.py", *map(str, arguments)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so_and_ends_well():
    done = run()
    assert done.returncode == 0 and "no CUDA device here" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("part", [pytest.param("alignment rows gram", marks=KERNELS)])
def test_a_rehearsal_takes_every_step_of_a_part_and_writes_them_down(tmp_path, part):
    done = run("--rehearse", "--out", tmp_path / "gpu.json", "--only", *part.split())
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["failed"] == {} and {row["row"].split(",")[0] for row in found["rows"]} >= {
        "soft-DTW",
        "OTAM",
    }
    assert all(row["verdict"] == "met" for row in found["rows"] if row["how"] == "error")
