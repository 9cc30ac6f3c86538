"""The stages of a pipeline: one after the other, the jobs of a stage side by side, what is done already
skipped."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from mmpt.config import ConfigError
from mmpt.launch.local import LocalJob, Running, visible_gpus
from mmpt.launch.slurm import SlurmJob

POLL_SECONDS = 0.2
SHOWN_LINES = 15


def unfinished(stages: Iterable[list[LocalJob]]) -> Iterator[list[LocalJob]]:
    """The jobs left to do, stage by stage; once one has to run, all later stages do, because they build on
    it."""
    started = False
    for jobs in stages:
        left = jobs if started else [job for job in jobs if not job.is_done()]
        for job in jobs:
            if job not in left:
                print(f"{job.path}: done already ({job.stamp})")
        if left:
            started = True
            yield left


def run_stages(stages: Iterable[list[LocalJob]], dryrun: bool = False) -> int:
    """Run what is not done, stopping at the first stage with a failure.

    Returns:
        0, or the exit code of the first job that failed.
    """
    for jobs in unfinished(stages):
        if dryrun:
            for job in jobs:
                job.launch(dryrun=True)
            continue
        code = run_one(jobs[0]) if len(jobs) == 1 else run_side_by_side(jobs)
        if code:
            return code
    return 0


def submit_stages(
    stages: Iterable[list[LocalJob]], resources: str | None, table: str, dryrun: bool = False
) -> None:
    """Submit what is not done to the cluster; a stage waits there until all jobs of the one before have ended
    well."""
    before: tuple[str, ...] = ()
    for jobs in unfinished(stages):
        before = tuple(
            SlurmJob(job, resources, table, after=before, stamped=True).launch(dryrun) for job in jobs
        )


def run_one(job: LocalJob) -> int:
    """A stage of one job; its output is the terminal's."""
    code = job.launch(False)
    if not code:
        job.folder.mkdir(parents=True, exist_ok=True)
        job.stamp.touch()
    return code


def run_side_by_side(jobs: list[LocalJob]) -> int:
    """Run jobs at the same time, as many as there are GPUs for; the output of each goes to `<run
    folder>/<name>.log`.

    After a failure no further job starts; those that run are waited for.

    Raises:
        ConfigError: two jobs write to the same place, or one needs more GPUs than there are.
    """
    logs = {job: job.folder / f"{Path(job.path).stem}.log" for job in jobs}
    if len(set(logs.values())) < len(jobs):
        paths = ", ".join(job.path for job in jobs)
        raise ConfigError(
            f"jobs of one stage write to the same place: {paths}. Put them in different stages."
        )
    waiting = [(job, job.command(check_gpus=True)) for job in jobs]
    free, taken, first_code = visible_gpus(), {}, 0
    with Running() as running:
        while waiting or taken:
            for process in [process for process in taken if process.poll() is not None]:
                job, devices = taken.pop(process)
                free += devices
                code = running.ended(process)
                _show_end(job, logs[job], code)
                first_code = first_code or code
            if first_code:
                waiting.clear()
            while waiting and waiting[0][1].gpus <= len(free):
                job, command = waiting.pop(0)
                devices, free = free[: command.gpus], free[command.gpus :]
                logs[job].parent.mkdir(parents=True, exist_ok=True)
                with open(logs[job], "a") as log:
                    taken[running.start(command, devices, log)] = job, devices
                print(f"{job.path}: started, output in {logs[job]}", flush=True)
            time.sleep(POLL_SECONDS)
    return first_code


def _show_end(job: LocalJob, log: Path, code: int) -> None:
    """Say how a job ended; stamp it, or show the end of its log."""
    if not code:
        job.stamp.touch()
        print(f"{job.path}: done", flush=True)
        return
    lines = log.read_text(errors="replace").splitlines()[-SHOWN_LINES:]
    print(
        "\n".join(
            [
                f"{job.path} failed with exit code {code}; the end of {log}:",
                *(f"    {line}" for line in lines),
            ]
        ),
        file=sys.stderr,
    )
