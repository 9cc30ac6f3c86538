"""From project files to jobs: a job file is one job; a pipeline file derives job files and runs them in
stages, one after the other, the jobs of a stage side by side, what is done already skipped."""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmpt.config import Config, ConfigError, load_config, merge, recursive_config
from mmpt.config.build import build_config
from mmpt.config.load import pipeline_of, rewrite_dirs
from mmpt.config.yamlfile import write_yaml
from mmpt.launch.gram_flags import overrides
from mmpt.launch.gram_json import jobs_of
from mmpt.launch.local import ONE_PROCESS, PROCESSES, LocalJob, Running, visible_gpus
from mmpt.launch.slurm import TABLE, SlurmJob
from mmpt.launch.torchrun import Topology

logger = logging.getLogger(__name__)
lines = logging.getLogger("mmpt.lines")

POLL_SECONDS = 0.2
SHOWN_LINES = 15


@dataclass(frozen=True)
class Request:
    """How project files are to be run.

    Attributes:
        job_type: of `LocalJob`; "slurm" submits to the cluster.
        cpu: on the CPU, in float32.
        overrides: `section.key=value` texts.
        topology: processes and machines.
        slurm: resource set; None: the file's slurm_config.
        slurm_table: file of resource sets.
        gram: flags of the GRAM release and their values.
        dryrun: show the commands; run nothing, write nothing.
        run: run the stages of pipeline files.
        accept: keys that may differ from what a run folder was trained with.
        settings: `section.key=value` texts below those that flags and `overrides` make.
    """

    job_type: str | None = None
    cpu: bool = False
    overrides: tuple[str, ...] = ()
    topology: Topology = ONE_PROCESS
    slurm: str | None = None
    slurm_table: str = TABLE
    gram: Mapping[str, Any] = field(default_factory=dict)
    dryrun: bool = False
    run: bool = False
    accept: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        topology = self.topology
        if self.slurm and self.job_type not in (None, "slurm"):
            raise ConfigError(
                f"--slurm {self.slurm} and --jobtype {self.job_type} say two things; leave one out."
            )
        if self.on_cluster and (topology.nodes > 1 or topology.per_node or topology.endpoint):
            raise ConfigError(
                f"processes and machines of a SLURM job stand in {self.slurm_table}; choose a set with "
                "--slurm."
            )

    @property
    def on_cluster(self) -> bool:
        """Whether jobs are submitted."""
        return self.slurm is not None or self.job_type == "slurm"

    def processes(self, config: Config) -> int:
        """How many one job has."""
        topology = self.topology
        if topology.per_node:
            return topology.world_size
        return topology.nodes * PROCESSES.get(self.job_type or config.task_type or "", 1)

    def job(self, path: str) -> LocalJob:
        """One project file as a job."""
        job_type = "slurm" if self.on_cluster else self.job_type
        said = (*self.settings, *self.overrides)
        plain = LocalJob(path, job_type, self.cpu, said, self.topology, self.accept)
        if not self.gram:
            return plain
        if self.on_cluster and "train_batch_size" in self.gram:
            raise ConfigError(
                "--train_batch_size counts all processes, which SLURM's table decides: --set "
                "fairseq.dataset.batch_size."
            )
        processes = self.processes(plain.config)
        changes = overrides(self.gram, plain.config, plain.is_prediction, processes)
        return replace(plain, overrides=(*self.settings, *changes, *self.overrides))


def launch(paths: Iterable[str], request: Request) -> int:
    """Run or submit project files, one after the other; the exit code of the first that failed, else 0."""
    paths = list(paths)
    if "config" in request.gram and paths:
        raise ConfigError(f"--config stands for a project file; leave out {' '.join(paths)}.")
    if request.gram:
        named = [None] if "config" in request.gram else paths
        jobs = [job for path in named for job in jobs_of(path, request)]
    else:
        jobs = [(path, request) for path in paths]
    read = [(Pipeline(path, (*wanted.settings, *wanted.overrides)), wanted) for path, wanted in jobs]
    for pipeline, wanted in read:
        code = _launch(pipeline, wanted)
        if code:
            return code
    return 0


def _launch(pipeline: Pipeline, request: Request) -> int:
    """A job file is run; a pipeline derives its files and, if asked to, runs its stages."""
    if not pipeline.derives:
        job = request.job(pipeline.path)
        if not request.on_cluster:
            return job.launch(request.dryrun)
        SlurmJob(job, request.slurm, request.slurm_table).launch(request.dryrun)
        return 0
    if request.overrides and not request.run:
        raise ConfigError(
            f"{pipeline.path}: --set changes jobs, and without --run a pipeline starts none. Add --run."
        )
    pipeline.derive(request.dryrun)
    stages = ([request.job(path) for path in paths] for paths in (pipeline.stages() if request.run else ()))
    if request.on_cluster:
        submit_stages(stages, request.slurm, request.slurm_table, request.dryrun)
        return 0
    return run_stages(stages, request.dryrun)


class Pipeline:
    """A project file and the jobs it stands for: itself, or the files it derives.

    Args:
        path: a job file or a pipeline file.
        overrides: `section.key=value` texts, of a job file; those of a pipeline go to its jobs.
    """

    def __init__(self, path: str, overrides: Iterable[str] = ()):
        if not path.endswith((".yaml", ".yml")):
            raise ConfigError(f"{path}: expected a .yaml file. Start Python programs directly: python {path}")
        self.path = path
        self.derives = recursive_config(path).get("base_dir") is not None
        self.config = load_config(path, () if self.derives else overrides)
        # folders below projects/: of the templates, and of what is derived of them
        self.base, self.target = self.config.base_dir or "", self.config.project_dir or ""
        if self.derives and not self.target:
            raise ConfigError(
                f"{path}: project_dir is missing: a pipeline (base_dir: {self.config.base_dir}) writes "
                "its files there."
            )

    def derive(self, dryrun: bool) -> None:
        """Write the job files of every task group; with `dryrun` only say which."""
        for name, group in (self.config.task_group or {}).items():
            if not group.get("task_list"):
                lines.info(f"[warning] {name} has no task_list specified.")
        for template, target, tree in list(self._derived()):
            lines.info(f"saving {target}")
            if not dryrun:
                header = (
                    f"{template} as changed by {self.path}, which writes this file. Run: python "
                    f"locallaunch.py {target}"
                )
                write_yaml(target, tree, header)

    def stages(self) -> Iterator[list[str]]:
        """The files of run_task; those of one list run side by side."""
        for stage in self.config.run_task or []:
            paths = [
                Path("projects") / self.target / name
                for name in (stage if isinstance(stage, list) else [stage])
            ]
            for path in paths:
                if not path.is_file() and not pipeline_of(path):
                    lines.info(f"[warning] run_task names {path}, which no task_group writes: skipped.")
            yield [str(path) for path in paths if path.is_file() or pipeline_of(path)]

    def _derived(self) -> Iterator[tuple[Path, Path, dict[str, Any]]]:
        """Template, file to write and its content, for every file of every group."""
        for group in (self.config.task_group or {}).values():
            changes = {key: value for key, value in group.items() if key != "task_list"}
            for name in group.get("task_list") or []:
                template, target = Path("projects") / self.base / name, Path("projects") / self.target / name
                tree = rewrite_dirs(
                    merge(recursive_config(template), changes), f"runs/{self.base}", f"runs/{self.target}"
                )
                build_config(tree, f"{template} as changed by {self.path}")
                yield template, target, tree


def unfinished(stages: Iterable[list[LocalJob]]) -> Iterator[list[LocalJob]]:
    """The jobs left to do, stage by stage; once one has to run, all later stages do, because they build on
    it."""
    started = False
    for jobs in stages:
        left = jobs if started else [job for job in jobs if not job.is_done()]
        for job in jobs:
            if job not in left:
                lines.info(f"{job.path}: done already ({job.stamp})")
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
    job.begin()
    code = job.launch(False)
    if not code:
        job.finish()
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
    waiting = [(job, job.command(check=True)) for job in jobs]
    free, first_code = visible_gpus(), 0
    taken: dict[subprocess.Popen, tuple[LocalJob, list[str]]] = {}
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
                job.begin()
                with open(logs[job], "a") as log:
                    taken[running.start(command, devices, log)] = job, devices
                lines.info(f"{job.path}: started, output in {logs[job]}")
            time.sleep(POLL_SECONDS)
    return first_code


def _show_end(job: LocalJob, log: Path, code: int) -> None:
    """Say how a job ended; stamp it, or show the end of its log."""
    if not code:
        job.finish()
        lines.info(f"{job.path}: done")
        return
    said = log.read_text(errors="replace").splitlines()[-SHOWN_LINES:]
    text = "".join(f"\n    {line}" for line in said)
    logger.error("%s failed with exit code %d; the end of %s:%s", job.path, code, log, text)
