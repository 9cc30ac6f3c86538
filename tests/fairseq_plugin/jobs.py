"""Jobs in a session of their own."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from mmpt.launch.torchrun import STOPPED
from tests.conftest import ROOT


def processes(run: Path) -> list[int]:
    """All processes of a run: its folder is among their arguments."""
    found = []
    for words in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(run).encode() in words.read_bytes():
                found.append(int(words.parent.name))
        except OSError:  # it has ended
            continue
    return found


def start(words: list[str], run: Path, saved: str = "checkpoint_1_*.pt") -> subprocess.Popen:
    """A run that has saved its first checkpoint, or one of that name."""
    job = subprocess.Popen(
        words,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while not list(run.glob(saved)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return job


def ended(job: subprocess.Popen) -> str:
    output, _ = job.communicate(timeout=120)
    assert job.returncode == STOPPED, output[-3000:]
    return output
