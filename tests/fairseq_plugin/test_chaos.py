"""Two processes in training, hit by everything at once."""

import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT


def hit(world, ledger, *words: str) -> str:
    """What a chaotic job printed; all its runs must have ended with the quiet run's parameters."""
    command = [sys.executable, "benchmarks/chaos.py", "--world", str(world), "--ledger", str(ledger), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"hits in \d+ runs: \d+ right, 0 lost, 0 wrong, 0 hung", done.stdout), done.stdout
    return done.stdout


def test_killed_ranks_damaged_checkpoints_and_a_second_job_lose_nothing(toy_world, tmp_path):
    kinds = ("kill_one", "truncate", "second_job")
    said = hit(toy_world, tmp_path / "ledger", "--updates", "12", "--hits", "3", "--kinds", *kinds)
    assert "3 hits in" in said


@pytest.mark.slow
def test_runs_hit_in_every_way_end_where_the_quiet_run_ends_and_the_ledger_goes_on(toy_world, tmp_path):
    hit(toy_world, tmp_path / "ledger", "--hits", "12")
    assert re.search(r"\n24 hits", hit(toy_world, tmp_path / "ledger", "--hits", "12"))


@pytest.mark.slow
def test_checkpoints_in_shards_lose_nothing(toy_world, tmp_path):
    kinds = ("kill_one", "truncate", "bit_flip", "save_lost", "disk_full", "other_ranks")
    words = ("--hits", "8", "--kinds", *kinds, "--set", "job.sharded_saves=true")
    assert "8 hits in" in hit(toy_world, tmp_path / "ledger", *words)
