"""One project file -> one sbatch file: shown, or submitted."""

from __future__ import annotations

import logging
import shlex
import subprocess
import sys
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmpt.config import ConfigError, find_project, recursive_config
from mmpt.config.fields import Reader, Section, option
from mmpt.config.yamlfile import read_yaml
from mmpt.launch.heartbeat import STOOD
from mmpt.launch.local import Command, LocalJob
from mmpt.launch.torchrun import STOPPED, Topology

lines = logging.getLogger("mmpt.lines")

TABLE = "scripts/slurm/resources.yaml"
GRACE_SECONDS = (
    120  # between the signal and the end of the job's time: has to cover one update and one checkpoint
)
MOST_RESTARTS = 8  # of a job that stood still: one that always does would come back for ever
LATE = {
    "@HEAD@:@PORT@": '"$head:$port"',
    "@JOB@": '"$SLURM_JOB_ID"',
}  # known when the job starts; the words left of it need no quotes

SCRIPT = """\
#!/bin/bash
{options}

# {path}: {devices}. Resource set {name}; written by locallaunch.py.
{setup}step=
asked=
stop() {{  # the job's time is up, or another job takes its place: let the ranks save a checkpoint
    asked=yes
    [[ -z $step ]] || kill -USR1 "$step"
}}
trap stop USR1 TERM

{begin}{rendezvous}srun --kill-on-bad-exit=1 {command} &
step=$!
wait "$step"
while kill -0 "$step" 2>/dev/null; do wait "$step"; done  # a signal ends `wait`, not the step
wait "$step"; code=$?
stood=$((code == {stood} && ${{SLURM_RESTART_COUNT:-0}} < {restarts}))
if ((code == {stopped} || stood)) || [[ -n $asked && $code != 0 ]]; then
    echo "stopped with exit code $code: back into the queue" >&2
    scontrol requeue "$SLURM_JOB_ID"
fi
{stamp}exit "$code"
"""

RENDEZVOUS = """\
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((10000 + SLURM_JOB_ID % 50000))
"""


@dataclass(frozen=True, kw_only=True)
class Resources(Section):
    """What a job asks the cluster for: the entry `name` of the resource table."""

    name: str = ""
    nodes: int = option(1, "machines", least=1)
    gpus_per_node: int = option(0, "0 for a CPU job", least=0)
    processes_per_node: int = option(0, "0: one per GPU", least=0)
    sbatch: Mapping[str, Any] = option({}, "further options of sbatch")
    setup: list = option([], "shell lines before the job")

    @classmethod
    def load(cls, name: str, table: str = TABLE) -> Resources:
        """An entry of the resource table.

        Raises:
            ConfigError: there is no such entry, or it holds something else than resources.
        """
        entries = read_yaml(find_project(table))
        if name not in entries:
            raise ConfigError(
                f"{table} has no resource set {name!r}; it has {', '.join(entries)}. Add it there, or "
                "choose with --slurm."
            )
        reader = Reader(lambda key: str(table))
        read = reader.section(cls, entries[name] or {}, name)
        if read is None or reader.problems:
            options = " Options of sbatch go under `sbatch:`."
            raise ConfigError(replace(p, cure=p.cure + options) if p.what else p for p in reader.problems)
        return replace(read, name=name)

    def topology(self) -> Topology:
        """Processes on these machines, which meet on the first one."""
        per_node = self.processes_per_node or self.gpus_per_node or 1
        late = ("@HEAD@:@PORT@", "@JOB@") if self.nodes > 1 else ()
        return Topology(self.nodes, per_node, *late)

    def for_prediction(self) -> Resources:
        """One machine, one process, at most one GPU."""
        return replace(self, nodes=1, processes_per_node=1, gpus_per_node=min(1, self.gpus_per_node))


@dataclass(frozen=True)
class SlurmJob:
    """A job for the cluster.

    Args:
        job: the project file and how to run it.
        resources: name of a resource set; None: the file's slurm_config.
        table: file of resource sets.
        after: job ids that have to end well first.
        stamped: mark the run folder when the job has ended well, for pipelines.
    """

    job: LocalJob
    resources: str | None = None
    table: str = TABLE
    after: tuple[str, ...] = ()
    stamped: bool = False

    @property
    def file(self) -> Path:
        """The sbatch file."""
        return self.job.folder / "slurm" / f"{Path(self.job.path).stem}.sbatch"

    def launch(self, dryrun: bool = False) -> str:
        """Show the sbatch file and, unless `dryrun`, write and submit it.

        Returns:
            The job's id in the queue; with `dryrun` the project file in its place.

        Raises:
            ConfigError: the file or the resource set is wrong, or sbatch refuses the job.
        """
        lines.info("[JobLauncher] job_key slurm")
        text = self.text()
        argv = [
            "sbatch",
            "--parsable",
            *([f"--dependency=afterok:{':'.join(self.after)}"] if self.after else []),
            str(self.file),
        ]
        lines.info("launching %s\n%s", shlex.join(argv), text.removesuffix("\n"))
        if dryrun:
            return self.job.path
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(text)
        try:
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise ConfigError(
                "sbatch was not found: this machine cannot submit to SLURM. Log in to one that can, or "
                "leave out --slurm."
            ) from error
        if done.returncode:
            raise ConfigError(
                f"sbatch refused {self.file} (exit code {done.returncode}): {done.stderr.strip()}. See "
                f"{self.table}."
            )
        number = done.stdout.strip().split(";")[0]
        lines.info("submitted as job %s; its output: %s", number, self._log.replace("%j", number))
        return number

    def text(self) -> str:
        """The sbatch file's content."""
        resources = self._resources()
        if not resources.gpus_per_node and not self.job.on_cpu:
            raise ConfigError(
                f"{self.job.path} trains on GPUs and resource set {resources.name} has none. Add --cpu, "
                "or choose another set with --slurm."
            )
        if resources.gpus_per_node and self.job.on_cpu:
            raise ConfigError(
                f"{self.job.path} runs on the CPU and resource set {resources.name} would reserve GPUs. "
                "Choose one without, as --slurm cpu."
            )
        command = (
            self.job.predict_command()
            if self.job.is_prediction
            else self.job.train_command(resources.topology())
        )
        devices = f"{resources.gpus_per_node} GPUs per node" if resources.gpus_per_node else "CPUs"
        return SCRIPT.format(
            options="\n".join(f"#SBATCH --{option}" for option in self._options(resources)),
            path=_word(self.job.path, "the project file"),
            devices=command.topology.describe(devices),
            name=resources.name,
            setup="".join(f"{line}\n" for line in (*resources.setup, *_inherited(resources))),
            rendezvous=RENDEZVOUS if resources.nodes > 1 else "",
            command=_quoted(command),
            stopped=STOPPED,
            stood=STOOD,
            restarts=MOST_RESTARTS,
            begin=self._stamp_line("begin") if self.stamped else "",
            stamp=f"((code)) || {self._stamp_line('finish')}" if self.stamped else "",
        )

    def _stamp_line(self, verb: str) -> str:
        job = self.job
        words = [sys.executable, "-m", "mmpt_cli.stamp", verb, job.path, *(["--cpu"] if job.cpu else [])]
        return shlex.join([*words, *(word for text in job.overrides for word in ("--set", text))]) + "\n"

    @property
    def _log(self) -> str:
        return str(self.file.with_suffix("")) + "-%j.log"

    def _resources(self) -> Resources:
        name = self.resources or recursive_config(self.job.path).get("slurm_config")
        if not name:
            raise ConfigError(
                f"{self.job.path}: slurm_config is missing: which resource set of {self.table}? Say "
                "--slurm NAME."
            )
        resources = Resources.load(name, self.table)
        return resources.for_prediction() if self.job.is_prediction else resources

    def _options(self, resources: Resources) -> list[str]:
        """Options of sbatch, without the dashes; those of the table have the last word."""
        options = {
            "job-name": Path(self.job.path).stem,
            "output": self._log,
            "open-mode": "append",
            "nodes": resources.nodes,
            "ntasks-per-node": 1,
            **({"gpus-per-node": resources.gpus_per_node} if resources.gpus_per_node else {}),
            "signal": f"B:USR1@{GRACE_SECONDS}",
            "requeue": True,
            **resources.sbatch,
        }
        return [
            name if value is True else f"{name}={_word(value, name)}"
            for name, value in options.items()
            if value not in (None, False)
        ]


def _word(value: Any, what: str) -> str:
    """A value as one word of a line; a line break in it would begin a line of its own, which the shell runs.

    Raises:
        ConfigError: it holds control characters.
    """
    text = str(value)
    if any(unicodedata.category(letter) == "Cc" for letter in text):
        raise ConfigError(f"SLURM: {what} holds control characters: {text[:100]!r}. Choose another name.")
    return shlex.quote(text)


def _inherited(resources: Resources) -> list[str]:
    """srun takes over what sbatch was given, except this."""
    return ["export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK"] if "cpus-per-task" in resources.sbatch else []


def _quoted(command: Command) -> str:
    """The command as a shell line; what is known only when the job starts becomes a variable."""
    line = shlex.join(command.argv)
    for mark, variable in LATE.items():
        line = line.replace(mark, variable)
    return line
