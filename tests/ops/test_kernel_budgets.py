"""Every kernel compiles for the GPUs it is meant for, within their registers and shared memory."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.ops.kernels import KERNELS

pytestmark = [*KERNELS, pytest.mark.slow]
SHARED = {80: 163 * 1024, 90: 227 * 1024}  # bytes that one block may have


def budgets(what, folder):
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(folder)
    command = [sys.executable, "-m", "tests.ops.kernel_budgets", str(what)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("capability", SHARED)
def test_kernels_fit_without_spills(capability, tmp_path):
    kernels = budgets(capability, tmp_path)
    assert kernels
    assert [k for k in kernels if k["stack"] or k["shared"] > SHARED[capability]] == []


def test_large_calls_allocate_no_more_than_they_may(tmp_path):
    calls = budgets("memory", tmp_path)
    assert len(calls) == 3 and [call for call in calls if call["bytes"] >= call["limit"]] == []
