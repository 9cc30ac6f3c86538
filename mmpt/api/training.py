"""Training a project file, as a call."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from mmpt.config import Config, ConfigError
from mmpt.config.rundir import to_dict
from mmpt.config.yamlfile import write_yaml
from mmpt.launch.local import LocalJob, Running, visible_gpus
from mmpt.launch.torchrun import Topology
from mmpt.utils.text import read_json_log

POLL_SECONDS = 0.2
SHOWN_LINES = 15


class TrainingFailed(RuntimeError):
    """Training ended with an error; `exit_code` is the command's."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Run:
    """A training run on disk.

    Attributes:
        folder: checkpoints, `config.yaml`, `metrics.jsonl`.
        log: what training printed; None where it went to the terminal.
    """

    folder: Path
    log: Path | None = None

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint."""
        return self.folder / "checkpoint_last.pt"

    @property
    def best_checkpoint(self) -> Path:
        """The best one of validation."""
        return self.folder / "checkpoint_best.pt"

    def metrics(self, tag: str | None = None) -> Iterator[dict[str, Any]]:
        """What was logged, oldest first: {"tag": "train_inner", "update": 20, "loss": 9.31, ...}.

        Args:
            tag: only lines with it: train_inner, train, valid.
        """
        path = self.folder / "metrics.jsonl"
        if path.is_file():
            yield from (line for line in read_json_log(path)[0] if tag in (None, line.get("tag")))


def train(
    config: str | Path | Config | Mapping[str, Any],
    overrides: Iterable[str] = (),
    *,
    cpu: bool = False,
    nproc: int = 1,
    accept_changes: Iterable[str] = (),
    log: str | Path | None = None,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> Run:
    """Train on this machine and wait for the end; a run that was stopped goes on from its last checkpoint.

    fairseq trains in a process of its own, which `mmpt train` starts in the same way.

    Args:
        config: a project file, or what is in one.
        overrides: `section.key=value` texts merged last.
        cpu: on the CPU, in float32.
        nproc: processes, one GPU each where there are GPUs.
        accept_changes: keys whose values may differ from those that the run folder was trained with.
        log: file that gets the output; None: it goes to the terminal.
        progress: called with each line of `metrics.jsonl` as it is written.

    Raises:
        ConfigError: the file, or what it asks of this machine, is wrong.
        TrainingFailed: training ended with an error; shows the end of the log.
    """
    job = LocalJob(
        _on_disk(config),
        "local_single",
        cpu,
        tuple(overrides),
        Topology(per_node=nproc if nproc > 1 else None),
        tuple(accept_changes),
    )
    run = Run(job.folder, Path(log) if log else None)
    run.folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as open_files:
        output = open_files.enter_context(open(run.log, "a")) if run.log else None
        if output:
            open_files.enter_context(_launcher_speaks_into(output))
        command = job.command(check=True)
        running = open_files.enter_context(Running())
        process = running.start(command, visible_gpus()[: command.gpus], output)
        follow = _Follow(run.folder / "metrics.jsonl", progress)
        while process.poll() is None:
            follow()
            time.sleep(POLL_SECONDS)
        follow()
        code = running.ended(process)
    if code:
        said = run.log.read_text(errors="replace").splitlines()[-SHOWN_LINES:] if run.log else []
        where = f" Its log: {run.log}" if run.log else ""
        raise TrainingFailed("\n".join([*said, f"training stopped with exit code {code}.{where}"]), code)
    return run


@contextlib.contextmanager
def _launcher_speaks_into(file: TextIO) -> Iterator[None]:
    """Lines and remarks of the launcher belong to the log of what it launches."""
    handler = logging.StreamHandler(file)
    loggers = [logging.getLogger(name) for name in ("mmpt.lines", "mmpt.launch")]
    before = [(logger.handlers, logger.propagate, logger.level) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)


class _Follow:
    """Hands on the lines that a file gains."""

    def __init__(self, path: Path, tell: Callable[[dict[str, Any]], None] | None):
        self.path, self.tell = path, tell
        self.position = path.stat().st_size if path.is_file() else 0

    def __call__(self) -> None:
        if self.tell is None or not self.path.is_file():
            return
        with open(self.path) as file:
            file.seek(self.position)
            while (line := file.readline()).endswith("\n"):  # a line without end is still being written
                self.position = file.tell()
                self.tell(json.loads(line))


def _on_disk(config: str | Path | Config | Mapping[str, Any]) -> str:
    """The path of a project file that says this; written into its run folder where there is none."""
    if isinstance(config, str | Path):
        return str(config)
    tree = to_dict(config) if isinstance(config, Config) else dict(config)
    folder = tree.get("fairseq", {}).get("checkpoint", {}).get("save_dir")
    if not folder:
        raise ConfigError("fairseq.checkpoint.save_dir is missing: training needs a folder for checkpoints.")
    path = Path(folder) / "project.yaml"
    write_yaml(path, tree)
    return str(path)
