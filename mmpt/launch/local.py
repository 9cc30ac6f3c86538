"""One project file -> one command on this machine: its argv, the line that shows it, and running it."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import IO

from mmpt.config import Config, ConfigError, load_config, recursive_config
from mmpt.config.check import check_training
from mmpt.config.fairseq_args import batch_size, fairseq_args, share
from mmpt.config.rundir import tensorboard_dir, to_dict
from mmpt.launch.gram_flags import counted_length
from mmpt.launch.heartbeat import FOLDER, STOOD, Watch
from mmpt.launch.run_folder import RunFolder, paths_in
from mmpt.launch.torchrun import GUESSES, STOPPED, Topology, end_processes
from mmpt.utils.content import changed, digests
from mmpt.utils.files import atomic_write
from mmpt.utils.text import TextError, read_json

logger = logging.getLogger(__name__)
lines = logging.getLogger("mmpt.lines")  # what was asked for, as against remarks: stdout of a command

PACKAGE = Path(__file__).resolve().parent.parent  # for --user-dir
PROCESSES = {"local_single": 1, "local_small": 2, "local_big": 8}
JOB_TYPES = (*PROCESSES, "local_predict", "slurm")
TRAINER, PREDICTOR = "mmpt_cli.fairseq_train", "mmpt_cli.predict"
PLUGIN = ["--task", "mmtask", "--arch", "mmarch", "--criterion", "mmloss"]
CPU_OVERRIDES = ("fairseq.common.cpu=true", "fairseq.common.fp16=false")
SUGGESTED_LOCAL_BATCH = 32
ONE_PROCESS = Topology()
PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True)
class Command:
    """What is shown (short names, as typed in an activated environment) and what is executed (this
    interpreter, no shell).

    Attributes:
        gpus: how many GPUs of this machine it uses.
        topology: processes and machines.
        beats: it is one rank that says what it is doing, and nobody listens yet.
    """

    shown: list[str]
    argv: list[str]
    gpus: int = 0
    topology: Topology = ONE_PROCESS
    beats: bool = False

    @property
    def line(self) -> str:
        """The shown form, quoted for a shell."""
        return shlex.join(self.shown)


@dataclass(frozen=True)
class LocalJob:
    """A project file with its job type.

    Args:
        path: the project file.
        job_type: local_single, local_small (2 processes), local_big (8), local_predict; None: what the file's
            task_type says.
        cpu: train on the CPU, without fp16; `fairseq.common.cpu: true` says the same in the file.
        overrides: `section.key=value` texts, handed on to the job as `--set`.
        topology: processes and machines where the command line asks for others than the job type does.
        accept: keys that may differ from what the run folder was trained with.
    """

    path: str
    job_type: str | None = None
    cpu: bool = False
    overrides: tuple[str, ...] = ()
    topology: Topology = ONE_PROCESS
    accept: tuple[str, ...] = ()

    def launch(self, dryrun: bool = False) -> int:
        """Show the command and, unless `dryrun`, run it.

        Returns:
            The command's exit code.

        Raises:
            ConfigError: the file, the job type, or what the job asks of this machine is wrong.
        """
        command = self.command(check=not dryrun)
        if dryrun:
            show(command, f"{command.gpus} GPU{'s' * (command.gpus > 1)}" if command.gpus else "the CPU")
            return 0
        with Running() as running:
            running.start(command, visible_gpus()[: command.gpus])
            return running.wait()

    def command(self, check: bool = False) -> Command:
        """The command, after notes on what of it may surprise.

        Args:
            check: refuse what this machine has no GPUs for, and another experiment in the run folder.
        """
        job_type = self._resolved_job_type()
        if job_type == "local_predict":
            if self.topology != ONE_PROCESS:
                raise ConfigError(
                    f"{self.path}: prediction runs in one process. Leave out --nnodes and --nproc-per-node, "
                    "or use mmpt predict FILE --nproc N."
                )
            return self.predict_command()
        topology = (
            self.topology if self.topology.per_node else replace(self.topology, per_node=PROCESSES[job_type])
        )
        command = self.train_command(topology)
        if check:
            RunFolder(self.config).check_before(self.accept)
        if check and command.gpus > len(visible_gpus()):
            raise _too_few_gpus(
                self.path, job_type if topology.per_node == PROCESSES[job_type] else "this job", command.gpus
            )
        return command

    @property
    def is_prediction(self) -> bool:
        """Whether the job evaluates instead of training."""
        says_where_alone = self.job_type in (None, "slurm")
        said = recursive_config(self.path).get("task_type") if says_where_alone else self.job_type
        return said == "local_predict" or (self.job_type in PROCESSES and self._is_test_file)

    @property
    def _is_test_file(self) -> bool:
        tree = recursive_config(self.path)
        return bool(tree.get("predictor")) and (tree.get("dataset") or {}).get("split") == "test"

    @functools.cached_property
    def config(self) -> Config:
        """The project file as the job will see it."""
        return load_config(
            self.path, (*self.overrides, *(CPU_OVERRIDES if self.cpu and not self.is_prediction else ()))
        )

    @property
    def on_cpu(self) -> bool:
        """Whether no GPU is asked for."""
        return self.cpu or self.config.trainer.cpu

    @property
    def folder(self) -> Path:
        """Where the job writes: checkpoints, or reports."""
        config = self.config
        if self.is_prediction:
            return Path(config.eval.save_path or "runs/eval")
        return Path(config.trainer.save_dir or "runs")

    @property
    def stamp(self) -> Path:
        """The empty file that says that this job, with these very settings, has ended well."""
        settings = json.dumps(to_dict(self.config), sort_keys=True, default=str)
        return (
            self.folder / f".done-{Path(self.path).stem}-{hashlib.sha256(settings.encode()).hexdigest()[:12]}"
        )

    def is_done(self) -> bool:
        """Whether the stamp is there, what the job wrote is too, and what it read is the same by content."""
        if not self.stamp.is_file():
            return False
        try:
            before = read_json(self.stamp, dict, empty=True)
        except TextError:  # of an earlier version
            logger.info("%s does not say what the job read: it runs again", self.stamp)
            return False
        written = self.is_prediction or any(self.folder.glob("checkpoint*.pt"))
        same = before.keys() == set(self._read()) and not any(changed(before[path], path) for path in before)
        return written and same

    def begin(self) -> None:
        """Note beside the stamp what the files hold that the job is about to read."""
        with atomic_write(self._begun, "w") as file:
            json.dump({path: digests(path) for path in self._read()}, file)

    def finish(self) -> None:
        """Stamp the job, which has ended well."""
        os.replace(self._begun, self.stamp)

    @property
    def _begun(self) -> Path:
        return self.stamp.with_name(f"{self.stamp.name}.begun")

    def _read(self) -> list[str]:
        """Checkpoints, and what the sections `dataset` and `model` name."""
        config = self.config
        named = [*paths_in(to_dict(config.dataset)), *paths_in(to_dict(config.model))]
        return list(dict.fromkeys([*map(str, self._checkpoints_read()), *named]))

    def _checkpoints_read(self) -> list[Path]:
        config = self.config
        if self.is_prediction:
            named = config.trainer.path
            return [
                *Path(os.path.dirname(config.eval.save_path or "")).glob("checkpoint*.pt"),
                *([Path(named)] if named else []),
            ]
        restored = config.trainer.restore_file
        return [Path(restored)] if restored else []

    def _resolved_job_type(self) -> str:
        """`--jobtype`, else the file's task_type; job types of clusters fall back to one process here."""
        task_type = recursive_config(self.path).get("task_type") or "local_single"
        if self.job_type is None and task_type.startswith("sweep_"):
            if self.topology == ONE_PROCESS:
                lines.info(
                    f"[JobLauncher] task_type {task_type} is for a cluster: running local_single here "
                    "(choose with --jobtype)"
                )
            task_type = "local_single"
        job_type = self.job_type or task_type
        if job_type not in JOB_TYPES:
            where = "--jobtype" if self.job_type else f"{self.path}: task_type"
            raise ConfigError(f"{where}: unknown job type {job_type!r}; known: {', '.join(JOB_TYPES)}.")
        if job_type in PROCESSES and self.is_prediction:  # papers print such lines; the releases would train
            lines.info(f"[JobLauncher] {self.path} is a test file: running its prediction (local_predict)")
            job_type = "local_predict"
        lines.info(f"[JobLauncher] job_key {job_type.split('_')[0]}")
        return job_type

    def predict_command(self) -> Command:
        """Evaluation in one process, on a GPU where there is one."""
        on_cpu = self.on_cpu
        words = [self.path, *(["--device", "cpu"] if on_cpu else []), *self._set_words()]
        return Command(
            ["python", *_door("mmpt_cli/predict.py", PREDICTOR), *words],
            [sys.executable, "-m", PREDICTOR, *words],
            gpus=0 if on_cpu or not visible_gpus() else 1,
        )

    def train_words(self, topology: Topology = ONE_PROCESS) -> list[str]:
        """The arguments of fairseq's training entry: file, plugin, the file's fairseq section, changes."""
        config = self.config
        check_training(config)
        if counted := counted_length(config, topology.world_size):
            return replace(self, overrides=(*self.overrides, *counted)).train_words(topology)
        self._show_notes(config, topology)
        logdir = tensorboard_dir(config)
        if logdir:
            lines.info(f"update tensorboard_logdir as {logdir}")
        words = [self.path, "--user-dir", os.path.relpath(PACKAGE), *PLUGIN]
        words += ["--distributed-world-size", str(topology.world_size)] if topology.world_size > 1 else []
        words += ["--accept-changes", ",".join(self.accept)] if self.accept else []
        return [*words, *fairseq_args(config, logdir, topology.world_size), *self._set_words()]

    def train_command(self, topology: Topology) -> Command:
        """Training by fairseq, with torchrun before it where there are several processes."""
        words = self.train_words(topology)
        gpus = 0 if self.on_cpu else topology.processes
        if topology.world_size == 1:
            argv = [sys.executable, "-m", TRAINER, *words]
            return Command(["fairseq-train", *words], argv, gpus, topology, beats=True)
        spread = topology.torchrun_words()
        logs = f"--log-dir={self.config.save_dir / 'logs'}"
        return Command(
            ["torchrun", *spread, *_door("train.py", TRAINER), *words],
            [sys.executable, "-m", "mmpt.launch.torchrun", logs, *spread, "-m", TRAINER, *words],
            gpus,
            topology,
        )

    def _show_notes(self, config: Config, topology: Topology) -> None:
        """What the user may not expect of the command line that follows."""
        written = config.trainer.batch_size
        if (
            written is not None
            and written > SUGGESTED_LOCAL_BATCH
            and topology.world_size < PROCESSES["local_big"]
        ):
            lines.info(f"decreasing batch_size to {SUGGESTED_LOCAL_BATCH} for local testing?")
        if written is not None and config.dataset.subsampling is not None:
            lines.info(
                f"adjusting batch_size to {batch_size(config)} due to subsampling "
                f"{config.dataset.subsampling}."
            )
        division = share(config, topology.world_size)
        if division is not None:
            lines.info(
                f"global_batch of {division.global_batch} items: {topology.world_size} processes x "
                f"{division.update_freq} batches x {division.batch_size} items"
            )
        if self.cpu and recursive_config(self.path).get("fairseq", {}).get("common", {}).get("fp16"):
            rest = "bfloat16" if config.trainer.bf16 else "float32"
            lines.info(f"training in {rest}: --cpu leaves out fp16, which needs a GPU")

    def _set_words(self) -> list[str]:
        return [word for override in self.overrides for word in ("--set", override)]


class Running:
    """Commands under way. What the launcher is asked by SIGTERM or SIGUSR1 reaches all of them, and it waits
    for them to end."""

    def __init__(self) -> None:
        self.processes: dict[subprocess.Popen, Command] = {}
        self.listeners: dict[subprocess.Popen, contextlib.ExitStack] = {}
        self.stood: set[subprocess.Popen] = set()

    def __enter__(self) -> Running:
        handlers = {signal.SIGTERM: self._pass_on, signal.SIGUSR1: self._pass_on, signal.SIGINT: self._ignore}
        if threading.current_thread() is not threading.main_thread():  # Python lets no other set handlers
            handlers = {}
        self.before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def start(self, command: Command, devices: Sequence[str], log: IO | None = None) -> subprocess.Popen:
        """Start a command on exactly these GPUs; its output goes to `log`, or to the terminal."""
        chosen = ",".join(devices)
        show(command, f"GPU {chosen} (CUDA_VISIBLE_DEVICES={chosen})" if devices else "the CPU")
        listener = contextlib.ExitStack()
        beats = listener.enter_context(tempfile.TemporaryDirectory(prefix="mmpt_beats_"))
        heartbeat = {FOLDER: beats} if command.beats else {}
        process = subprocess.Popen(
            command.argv,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": chosen, **heartbeat},
            stdout=log,
            stderr=subprocess.STDOUT if log else None,
            preexec_fn=_die_with_launcher if sys.platform == "linux" else None,
        )
        self.processes[process], self.listeners[process] = command, listener
        if command.beats:
            listener.enter_context(Watch(Path(beats), 1, functools.partial(self._stands, process)))
        return process

    def _stands(self, process: subprocess.Popen, what: str) -> None:
        logger.error("error: %s Exit code %d: the same command goes on.", what, STOOD)
        self.stood.add(process)
        end_processes([process.pid])

    def wait(self) -> int:
        """Wait for the command that was started; its exit code, 128 + n where signal n killed it, as in a
        shell."""
        (process,) = self.processes
        process.wait()
        return self.ended(process)

    def ended(self, process: subprocess.Popen) -> int:
        """Forget a process that has ended; its exit code, which is also shown where it is not 0.

        A command that fails says why itself, unless a signal ended it.
        """
        command = self.processes.pop(process)
        self.listeners.pop(process).close()
        if process in self.stood or process.returncode == STOOD:
            return STOOD  # it has been said
        line = shlex.join(command.argv)
        if process.returncode < 0:
            name = signal.Signals(-process.returncode).name
            logger.error("error: killed by %s%s: %s", name, GUESSES.get(-process.returncode, ""), line)
            return 128 - process.returncode
        if process.returncode == STOPPED:
            text = "stopped as asked, checkpoint saved (exit code %d); the same command goes on from it"
            logger.warning(text, STOPPED)
        elif process.returncode:
            logger.error("exit code %d from: %s", process.returncode, line)
        return process.returncode

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        for process in self.processes:
            process.send_signal(number)

    def _ignore(self, number: int, frame: FrameType | None) -> None:
        """Ctrl-C reaches the commands without the launcher's help."""


def show(command: Command, devices: str) -> None:
    """The command on stdout, what it amounts to on stderr."""
    lines.info("launching %s", command.line)
    logger.info("[JobLauncher] %s", command.topology.describe(devices))


def visible_gpus() -> list[str]:
    """GPUs this process may use, as CUDA_VISIBLE_DEVICES names them; counted without importing torch."""
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False
        ).stdout
        present = sum(line.startswith("GPU ") for line in listed.splitlines())
    except (OSError, subprocess.TimeoutExpired):
        driver = Path("/proc/driver/nvidia/gpus")
        present = len(list(driver.iterdir())) if driver.is_dir() else 0
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return [str(number) for number in range(present)]
    devices = [device.strip() for device in chosen.split(",") if device.strip()]
    usable = devices.index("-1") if "-1" in devices else len(devices)
    return devices[: min(usable, present)]


def _too_few_gpus(path: str, what: str, wanted: int) -> ConfigError:
    found = len(visible_gpus())
    fitting = [name for name, count in PROCESSES.items() if count <= found]
    instead = f"--jobtype {fitting[-1]}, or " if fitting else ""
    return ConfigError(
        f"{path}: {what} needs {wanted} GPU{'s' * (wanted > 1)}, this machine shows {found}. "
        f"Use {instead}--cpu to train on the CPU (CUDA_VISIBLE_DEVICES hides GPUs where it is set)."
    )


def _die_with_launcher() -> None:
    """In the child: a launcher killed without warning takes its command along, which would train on beside
    the next run."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _door(file: str, module: str) -> list[str]:
    """A program as one types it: the file in a checkout, the module where mmpt was installed from a wheel."""
    path = PACKAGE.parent / file
    return [os.path.relpath(path)] if (PACKAGE.parent / "pyproject.toml").is_file() else ["-m", module]
