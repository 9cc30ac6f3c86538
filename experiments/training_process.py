"""Training runs that start at once, one after the other, each in a process of its own.

fairseq, torch and transformers take seconds to import; here a server process imports them once and is forked
for every run. A run is what `python train.py ARGUMENTS` is: same code, same files, a memory count of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import runpy
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

TRAIN = Path(__file__).resolve().parent.parent / "train.py"
# in the order of train.py; then what reads words, and what every optimizer of torch imports
PRELOADED = [
    "fairseq_cli.train",
    "mmpt.fairseq_plugin",
    "transformers.models.auto.tokenization_auto",
    "torch._dynamo",
]


@dataclass(frozen=True)
class Run:
    """A run under way."""

    process: BaseProcess
    answer: Connection

    def wait(self) -> tuple[int, float]:
        """Exit code and the largest memory of the process in MiB (nan if it was killed)."""
        self.process.join()
        peak_mib = self.answer.recv() if self.answer.poll() else float("nan")
        return self.process.exitcode, peak_mib


def server() -> ForkServerContext:
    """The context to start runs from."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def start(
    context: ForkServerContext, arguments: list[str], log: Path, env: Mapping[str, str] | None = None
) -> Run:
    """Start `train.py` with these arguments; its output is added to `log`.

    Args:
        context: of `server()`.
        arguments: of `train.py`.
        log: file; its folder must exist.
        env: variables added to the environment.
    """
    answer, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=_train, args=(arguments, str(log), dict(env or {}), os.getcwd(), sender), daemon=True
    )
    process.start()
    sender.close()
    return Run(process, answer)


def _train(arguments: list[str], log: str, env: Mapping[str, str], folder: str, answer: Connection) -> None:
    """In the new process."""
    threading.Thread(target=_stop_with_starter, daemon=True).start()
    os.environ.update(env)
    os.chdir(folder)
    with open(log, "ab") as output:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(output.fileno(), stream.fileno())
    sys.argv = [str(TRAIN), *arguments]
    try:
        runpy.run_path(str(TRAIN), run_name="__main__")
    finally:
        answer.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def _stop_with_starter() -> None:
    """A run whose starter is gone saves a checkpoint and ends, as on any SIGTERM, instead of training on
    beside the next run."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)
