"""Jobs that stand still end, and say which rank stopped."""

from __future__ import annotations

import os
import re
import signal

import pytest

from mmpt.launch.heartbeat import STOOD
from tests.fairseq_plugin.jobs import start
from tests.fairseq_plugin.runs import command

pytestmark = pytest.mark.slow
SETTINGS = ("job.timeout=6", "fairseq.optimization.max_update=1000")


def freeze(words: list[str], run, rank: int) -> tuple[int, str]:
    """Exit code and output of a job, a rank of which is stopped once the second checkpoint is there."""
    job = start(words, run, "checkpoint_1_2.pt")
    beats = [path for path in (run / "logs").rglob("*") if path.name == "stdout.log"]
    pids = _children(job.pid)
    pids = [child for pid in pids for child in _children(pid)] if beats else pids
    os.kill(sorted(pids)[rank], signal.SIGSTOP)
    output, _ = job.communicate(timeout=120)
    return job.returncode, output


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]


def test_a_frozen_rank_of_two_ends_the_job_and_is_named(toy_world, tmp_path):
    run = tmp_path / "run"
    words = command(toy_world, run, *SETTINGS, "loss.global_negatives=true", jobtype="local_small")
    code, output = freeze(words, run, 1)
    assert code == STOOD, output[-3000:]
    errors = re.findall(r"^error: .*", output, re.M)
    assert len(errors) == 1
    assert re.match(r"error: rank 1 on \S+ \(process \d+\) stands still since 2", errors[0])
    assert "it is stopped by a signal. Ended after 6 s without progress" in errors[0]


def test_a_frozen_single_process_is_ended_by_its_launcher(toy_world, tmp_path):
    run = tmp_path / "run"
    code, output = freeze(command(toy_world, run, *SETTINGS), run, 0)
    assert code == STOOD, output[-3000:]
    assert len(re.findall(r"^error: rank 0 on .* it is stopped by a signal", output, re.M)) == 1
