"""Running a stretch of a run again: from the checkpoint before it, with the run's own settings and number of
processes."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmpt.checkpoints.weights import updates_of
from mmpt.config import ConfigError, load_config
from mmpt.launch.local import LocalJob, Running, visible_gpus
from mmpt.launch.torchrun import Topology
from mmpt.replay.log import Job, RunLog

logger = logging.getLogger(__name__)

SHOWN_LINES = 15
KEPT = ("no_save", "no_last_checkpoints", "no_save_optimizer_state")
PATIENCE_S = 86400  # a backward pass per item may take long
FAIRSEQ_INTERVAL = 100  # its own log_interval


@dataclass(frozen=True)
class Replay:
    """An update that was made again.

    Attributes:
        run: its folder.
        update: its number.
        checkpoint: where the replay began; None: at the run's own beginning.
        processes: that made the update.
        logged: hash of the gradient in the run's log; None where that update was not logged.
        hashes: update -> hash of the gradient, of all updates that were made again.
        batches: {"rank", "batch", "loss", "terms", "items": [{"item", "video", "loss", "norm", "finite"}]}.
        error: what ended the update, where it failed.
    """

    run: Path
    update: int
    checkpoint: Path | None
    processes: int
    logged: str | None
    hashes: dict[int, str] = field(default_factory=dict)
    batches: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None

    @property
    def found(self) -> str | None:
        """Hash of the update's gradient; None where the update failed."""
        return self.hashes.get(self.update)

    @property
    def reproduced(self) -> bool | None:
        """Is the gradient that of the run, bit by bit? None where the run did not log it."""
        return None if self.logged is None else self.found == self.logged


def repeat(log: RunLog, update: int, since: int | None = None, overrides: tuple[str, ...] = ()) -> Replay:
    """Make an update of a run again.

    Args:
        log: of the run; its paths are read from the folder in which the run was started.
        update: from 1; the one after the last may be asked for, where it failed.
        since: make all updates after this one again too; None: begin as late as the checkpoints allow.
        overrides: `section.key=value` texts that change the settings.

    Raises:
        ConfigError: the run never came so far.
        RuntimeError: training failed before that update; the message shows the end of its output.
    """
    saved = list(checkpoints(log.folder))
    last = max([*log.lines, *log.starts, *(updates for _, updates in saved)])
    config = load_config(log.folder / "config.yaml")
    # a run may have made as many updates more as lie between two lines of its log
    interval = config.fairseq.get("common", {}).get("log_interval") or FAIRSEQ_INTERVAL
    if not 1 <= update <= last + interval:
        raise ConfigError(f"{log.folder} has made {last} updates; got --update {update}.")
    begin = update - 1 if since is None else min(since, update - 1)
    checkpoint, first = max(
        ((path, updates) for path, updates in saved if updates <= begin),
        key=lambda found: found[1],
        default=(None, 0),
    )
    segments = log.segments(first, update)
    with tempfile.TemporaryDirectory(prefix="mmpt-replay-") as name:
        scratch = Path(name)
        if checkpoint is not None:
            (scratch / "checkpoint_last.pt").symlink_to(checkpoint.resolve())
        if (log.folder / "retri").is_dir():  # groups of the epoch that a checkpoint is in the middle of
            shutil.copytree(log.folder / "retri", scratch / "retri")
        for _, end, job in segments[:-1]:
            _run(log, scratch, end, job, overrides, last=False)
        job = segments[-1][2]
        error = _run(log, scratch, update, job, overrides, last=True)
        found = Replay(log.folder, update, checkpoint, job.processes, log.hashes.get(update))
        return replace(found, error=error, **_recorded(scratch / "record"))


def checkpoints(folder: Path) -> Iterator[tuple[Path, int]]:
    """The checkpoints of a run, each with its number of updates; damaged ones are left out."""
    for path in sorted(folder.glob("checkpoint*.pt")):
        try:
            yield path, updates_of(path)
        except (OSError, ValueError) as error:
            logger.warning("%s is left out: %s", path, error)


def _run(
    log: RunLog, scratch: Path, until: int, job: Job, overrides: tuple[str, ...], last: bool
) -> str | None:
    """Train up to an update; the error where that update itself failed."""
    local = LocalJob(
        str(log.folder / "config.yaml"),
        "local_single",
        job.cpu,
        overrides=(
            *job.changes,
            *overrides,
            f"fairseq.checkpoint.save_dir={scratch}",
            "fairseq.common.tensorboard_logdir=null",
            "fairseq.common.wandb_project=null",
            *(f"fairseq.checkpoint.{key}=false" for key in KEPT),
            f"job.timeout={PATIENCE_S}",
        ),
        topology=Topology(per_node=job.processes if job.processes > 1 else None),
    )
    command = local.command(check=True)
    (scratch / "record").mkdir(exist_ok=True)
    words = ["--replay-until", str(until), "--replay-threads", str(job.threads)]
    words += ["--replay-record", str(scratch / "record"), *([] if last else ["--replay-goes-on"])]
    command = replace(command, argv=[*command.argv, *words], shown=[*command.shown, *words])
    logger.info("replaying up to update %d; processes: %d", until, job.processes)
    output = scratch / "output.txt"
    with open(output, "w") as file, Running() as running:
        running.start(command, visible_gpus()[: command.gpus], file)
        code = running.wait()
    reached = not last or any((scratch / "record").glob("rank*.json"))
    if code == 0 and reached:
        return None
    if code == 0:
        raise ConfigError(f"{log.folder} ends before update {until}, as its settings say.")
    end = "\n".join(output.read_text(errors="replace").splitlines()[-SHOWN_LINES:])
    if last and reached:
        return end
    raise RuntimeError(f"{end}\nthe replay of {log.folder} failed before update {until} (exit code {code}).")


def _recorded(folder: Path) -> dict[str, Any]:
    hashes, path = {}, folder / "hashes.jsonl"
    for line in map(json.loads, path.read_text().splitlines() if path.is_file() else ()):
        hashes[line["update"]] = line["grad_hash"]
    ranks = sorted(folder.glob("rank*.json"), key=lambda path: int(path.stem.removeprefix("rank")))
    return {"hashes": hashes, "batches": [batch for path in ranks for batch in json.loads(path.read_text())]}
