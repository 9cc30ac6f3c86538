"""Two processes in training, hit by everything at once."""

import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
def test_a_run_hit_in_every_way_ends_where_the_quiet_run_ends(toy_world, tmp_path):
    words = ["--runs", "1", "--updates", "16", "--rounds", "6", "--seed", "1", "--world", str(toy_world), "--keep", str(tmp_path)]
    words += ["--set", "retri_epoch=1", "--set", "num_cands=12"]
    done = subprocess.run(
        [sys.executable, "benchmarks/chaos.py", *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    hits, losses = re.search(r"(\d+) hits, \d+ resumes, (\d+) losses", done.stdout).groups()
    assert int(hits) >= 4 and losses == "0"
