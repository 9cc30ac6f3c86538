"""One project file -> one command on this machine: its argv, the line that shows it, and running it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mmpt.config import Config, ConfigError, load_config, recursive_config
from mmpt.config.checks import check_training
from mmpt.config.fairseq_args import batch_size, fairseq_args
from mmpt.config.rundir import tensorboard_dir

ROOT = Path(__file__).resolve().parent.parent
PROCESSES = {"local_single": 1, "local_small": 2, "local_big": 8}
JOB_TYPES = (*PROCESSES, "local_predict")
PLUGIN = ["--task", "mmtask", "--arch", "mmarch", "--criterion", "mmloss"]
CPU_OVERRIDES = ("fairseq.common.cpu=true", "fairseq.common.fp16=false", "fairseq.common.bf16=false")
SUGGESTED_LOCAL_BATCH = 32


@dataclass(frozen=True)
class Command:
    """What is shown (short names, as typed in an activated environment) and what is executed (this interpreter, no shell)."""

    shown: list[str]
    argv: list[str]

    @property
    def line(self) -> str:
        """The shown form, quoted for a shell."""
        return shlex.join(self.shown)


@dataclass(frozen=True)
class LocalJob:
    """A project file with its job type.

    Args:
        path: the project file.
        job_type: local_single, local_small (2 processes), local_big (8), local_predict; None: what the file's task_type says.
        cpu: train on the CPU, in float32; `fairseq.common.cpu: true` says the same in the file.
        overrides: `section.key=value` texts, handed on to the job as `--set`.
    """

    path: str
    job_type: str | None = None
    cpu: bool = False
    overrides: tuple[str, ...] = ()

    def launch(self, dryrun: bool = False) -> int:
        """Show the command and, unless `dryrun`, run it.

        Returns:
            The command's exit code.

        Raises:
            ConfigError: the file, the job type, or what the job asks of this machine is wrong.
        """
        job_type = self._resolved_job_type()
        command = self._predict_command() if job_type == "local_predict" else self._train_command(job_type, check_gpus=not dryrun)
        print(f"launching {command.line}", flush=True)
        return 0 if dryrun else _run(command)

    def _resolved_job_type(self) -> str:
        """`--jobtype`, else the file's task_type; job types of clusters fall back to one process here."""
        task_type = recursive_config(self.path).get("task_type") or "local_single"
        if self.job_type is None and task_type.startswith("sweep_"):
            print(f"[JobLauncher] task_type {task_type} is for a cluster: running local_single here (choose with --jobtype)")
            task_type = "local_single"
        job_type = self.job_type or task_type
        if job_type not in JOB_TYPES:
            where = "--jobtype" if self.job_type else f"{self.path}: task_type"
            raise ConfigError(f"{where}: unknown job type {job_type!r}; known: {', '.join(JOB_TYPES)}.")
        print(f"[JobLauncher] job_key {job_type.split('_')[0]}")
        return job_type

    def _predict_command(self) -> Command:
        config = load_config(self.path, self.overrides)
        on_cpu = self.cpu or config.fairseq.get("common", {}).get("cpu") is True
        words = [self.path, *(["--device", "cpu"] if on_cpu else []), *self._set_words()]
        return Command(
            ["python", "mmpt_cli/predict.py", *words],
            [sys.executable, str(ROOT / "mmpt_cli" / "predict.py"), *words],
        )

    def _train_command(self, job_type: str, check_gpus: bool) -> Command:
        config = load_config(self.path, (*self.overrides, *(CPU_OVERRIDES if self.cpu else ())))
        check_training(config)
        processes = PROCESSES[job_type]
        on_cpu = config.fairseq.get("common", {}).get("cpu") is True
        if check_gpus and not on_cpu:
            _check_gpus(job_type, self.path)
        self._show_notes(config, job_type)
        logdir = tensorboard_dir(config)
        if logdir:
            print(f"update tensorboard_logdir as {logdir}")
        words = [self.path, "--user-dir", _here("mmpt"), *PLUGIN]
        words += ["--distributed-world-size", str(processes)] if processes > 1 else []
        words += [*fairseq_args(config, logdir), *self._set_words()]
        train = _here("train.py")
        if processes == 1:
            return Command(["fairseq-train", *words], [sys.executable, train, *words])
        spread = [f"--nproc_per_node={processes}", "--standalone", train, *words]
        return Command(["torchrun", *spread], [sys.executable, "-m", "torch.distributed.run", *spread])

    def _show_notes(self, config: Config, job_type: str) -> None:
        """What the user may not expect of the command line that follows."""
        written = config.fairseq.get("dataset", {}).get("batch_size")
        if written is not None and written > SUGGESTED_LOCAL_BATCH and job_type != "local_big":
            print(f"decreasing batch_size to {SUGGESTED_LOCAL_BATCH} for local testing?")
        if written is not None and config.dataset.subsampling is not None:
            print(f"adjusting batch_size to {batch_size(config)} due to subsampling {config.dataset.subsampling}.")
        if self.cpu and recursive_config(self.path).get("fairseq", {}).get("common", {}).get("fp16"):
            print("training in float32: --cpu leaves out fp16, which needs a GPU")

    def _set_words(self) -> list[str]:
        return [word for override in self.overrides for word in ("--set", override)]


def visible_gpus() -> int:
    """GPUs this process may use, counted without importing torch."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False).stdout
        present = sum(line.startswith("GPU ") for line in listed.splitlines())
    except (OSError, subprocess.TimeoutExpired):
        driver = Path("/proc/driver/nvidia/gpus")
        present = len(list(driver.iterdir())) if driver.is_dir() else 0
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return present
    devices = [device.strip() for device in chosen.split(",") if device.strip()]
    usable = devices.index("-1") if "-1" in devices else len(devices)
    return min(usable, present)


def _check_gpus(job_type: str, path: str) -> None:
    wanted, found = PROCESSES[job_type], visible_gpus()
    if wanted <= found:
        return
    fitting = [name for name, count in PROCESSES.items() if count <= found]
    instead = f"--jobtype {fitting[-1]}, or " if fitting else ""
    raise ConfigError(
        f"{path}: {job_type} needs {wanted} GPU{'s' * (wanted > 1)}, this machine shows {found}. "
        f"Use {instead}--cpu to train on the CPU (CUDA_VISIBLE_DEVICES hides GPUs where it is set)."
    )


def _run(command: Command) -> int:
    """Exit code of the command; a command killed by signal n gives 128 + n, as in a shell."""
    code = subprocess.run(command.argv, check=False).returncode
    code = 128 - code if code < 0 else code
    if code:
        print(f"error: exit code {code} from: {shlex.join(command.argv)}", file=sys.stderr)
    return code


def _here(name: str) -> str:
    """A file of this repository as seen from the current directory."""
    return os.path.relpath(ROOT / name)
