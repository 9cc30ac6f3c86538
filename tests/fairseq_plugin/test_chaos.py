"""Two processes in training, hit by everything at once."""

import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT


def hit(world, folder, *words: str) -> tuple[int, str]:
    """Number of hits of one chaotic run, and what it printed; it must have ended with the quiet run's
    parameters."""
    command = [
        sys.executable,
        "benchmarks/chaos.py",
        "--runs",
        "1",
        "--seed",
        "1",
        "--world",
        str(world),
        "--keep",
        str(folder),
        *words,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    hits, losses = re.search(r"(\d+) hits, \d+ resumes, (\d+) losses", done.stdout).groups()
    assert losses == "0"
    return int(hits), done.stdout


def test_a_killed_rank_and_a_truncated_checkpoint_lose_nothing(toy_world, tmp_path):
    hits, said = hit(toy_world, tmp_path, "--updates", "8", "--rounds", "2", "--hits", "kill_one", "truncate")
    assert hits >= 1, said


@pytest.mark.slow
def test_a_run_hit_in_every_way_ends_where_the_quiet_run_ends(toy_world, tmp_path):
    retrieval = ["--set", "retri_epoch=1", "--set", "num_cands=12"]
    hits, said = hit(toy_world, tmp_path, "--updates", "16", "--rounds", "6", *retrieval)
    assert hits >= 4, said
