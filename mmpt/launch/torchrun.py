"""Several processes on one or more machines: the words of torchrun, and torchrun with readable failures.

    python mmpt/launch/torchrun.py --nproc_per_node=2 --standalone train.py ...

takes exactly torchrun's arguments and starts the same processes. Besides, it passes SIGTERM and SIGUSR1 on to
them and lets them finish, shows the output of the first rank alone (all of it is in the log folder), and when
ranks fail it shows the error of the one that failed first and returns its exit code. `locallaunch.py` starts
training through it.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from mmpt.config import ConfigError
from mmpt.launch.heartbeat import FOLDER, STOOD, Watch

logger = logging.getLogger(__name__)

# exit code of training that a signal stopped, its checkpoint saved: see mmpt/fairseq_plugin/signals.py
STOPPED = 85
# the variable with the words of a command that runs in several processes: torchrun would read some as its own
WORDS = "MMPT_RANK_WORDS"
SHOWN_LINES = 15
GUESSES: dict[int, str] = {
    signal.SIGKILL: " (out of memory? see the kernel log)",
    signal.SIGBUS: " (a file that it read became shorter meanwhile: `mmpt data verify` names it)",
}


@dataclass(frozen=True)
class Topology:
    """How many processes run, where, and how the machines find each other.

    Args:
        nodes: machines; the same command is started on each.
        per_node: processes on each machine; None: what the job type says.
        endpoint: HOST:PORT of one of the machines, needed for several.
        run_id: tells this job from others that meet at the same endpoint.
        node_rank: number of this machine, 0 on the one that `endpoint` names; None: in the order in which
            they arrive.
    """

    nodes: int = 1
    per_node: int | None = None
    endpoint: str | None = None
    run_id: str = "mmpt"
    node_rank: int | None = None

    def __post_init__(self) -> None:
        if self.nodes == 1 and (self.endpoint or self.node_rank is not None):
            raise ConfigError("--rdzv-endpoint and --node-rank are for several machines. Add --nnodes N.")
        if self.nodes > 1 and not self.endpoint:
            raise ConfigError(
                f"--nnodes {self.nodes}: the machines need a place to meet. Add --rdzv-endpoint "
                "HOST:PORT, the same on all: "
                f"one of them and a free port of it, for example {socket.gethostname()}:29500."
            )
        if self.node_rank is not None and not 0 <= self.node_rank < self.nodes:
            raise ConfigError(
                f"--node-rank {self.node_rank}: expected 0 to {self.nodes - 1} with --nnodes {self.nodes}."
            )

    @property
    def world_size(self) -> int:
        """Processes on all machines."""
        return self.nodes * self.processes

    @property
    def processes(self) -> int:
        """Those on each machine."""
        return self.per_node or 1

    def torchrun_words(self) -> list[str]:
        """Arguments of torchrun, before the program."""
        if self.nodes == 1:
            return [f"--nproc_per_node={self.processes}", "--standalone"]
        words = [f"--nnodes={self.nodes}", f"--nproc_per_node={self.processes}"]
        words += [f"--rdzv-endpoint={self.endpoint}", f"--rdzv-id={self.run_id}"]
        if self.node_rank is None:
            return [*words, "--rdzv-backend=c10d"]
        return [*words, "--rdzv-backend=static", f"--node-rank={self.node_rank}"]

    def describe(self, devices: str) -> str:
        """World size and devices in words."""
        processes = f"{self.processes} process{'es' * (self.processes > 1)}"
        where = f"{self.nodes} nodes x {processes}" if self.nodes > 1 else processes
        return f"world size {self.world_size}: {where} on {devices}"


def run_ranks(topology: Topology, module: str, words: Sequence[str]) -> int:
    """Run a command of this package in the processes of this machine; their exit code, see `main`.

    The module is to take its words from `words_of_rank`.
    """
    program = [sys.executable, "-m", "mmpt.launch.torchrun", *topology.torchrun_words(), "-m", module]
    environment = os.environ | {WORDS: json.dumps(list(words))}
    return subprocess.run(program, env=environment, check=False).returncode


def words_of_rank() -> list[str] | None:
    """The words of the command that this is a process of; None where no `run_ranks` started it."""
    return json.loads(os.environ[WORDS]) if WORDS in os.environ else None


@contextlib.contextmanager
def meeting() -> Iterator[None]:
    """Within it the processes that `run_ranks` started can talk to each other and draw the same numbers; any
    other is alone."""
    if words_of_rank() is None:
        yield
        return
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo")  # what they exchange is on the CPU
    seed = [torch.initial_seed()]
    dist.broadcast_object_list(seed)  # an untrained model is the same on all
    torch.manual_seed(seed[0])
    try:
        yield
    finally:
        dist.destroy_process_group()


def main(argv: list[str] | None = None) -> int:
    """Run torchrun; exit code 0, that of the rank that failed first (128 + n where signal n killed it), or 85
    after a stop on request."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError

    logging.basicConfig(format="%(message)s")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    args = run.parse_args(argv)
    logs = (
        Path(args.log_dir or tempfile.mkdtemp(prefix="mmpt_ranks_")) / f"{socket.gethostname()}-{os.getpid()}"
    )
    logs.mkdir(parents=True)
    args.log_dir, args.redirects, args.tee = str(logs), "3", "0:1"
    args.signals_to_handle = (
        "SIGINT,SIGHUP,SIGQUIT"  # torchrun's way with signals is to kill after half a minute
    )
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, pass_on)
    os.environ.setdefault("TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE", "[rank ${rank}] ")
    logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(
        logging.CRITICAL
    )  # report() says it better
    try:
        with listening(args, logs):
            run.run(args)
    except ChildFailedError as error:
        return report(error.failures, logs)
    except SignalException as error:
        logger.error("error: stopped by %s", error.sigval.name)
        return 128 + error.sigval
    except RendezvousError as error:
        logger.error(
            "error: the %s nodes did not meet at %s (%s). Every node needs the same --nnodes, "
            "--rdzv-endpoint and --rdzv-id, the endpoint's port must be free there and open for the others.",
            args.nnodes,
            args.rdzv_endpoint,
            error,
        )
        return 1
    return 0


@contextlib.contextmanager
def listening(args: Any, logs: Path) -> Iterator[None]:
    """End this launcher and its ranks once the job stands still."""
    nodes = int(str(args.nnodes).split(":")[-1])
    # machines meet in the run folder; one machine does without a file server
    folder = logs.parent / "heartbeat" if nodes > 1 else Path(tempfile.mkdtemp(prefix="mmpt_beats_"))
    folder.mkdir(exist_ok=True)
    os.environ[FOLDER] = str(folder)
    try:
        with Watch(folder, nodes * int(args.nproc_per_node), stands):
            yield
    finally:
        if nodes == 1:
            shutil.rmtree(folder, ignore_errors=True)


def stands(what: str) -> None:
    """End the ranks, which cannot agree on anything any more, and say why."""
    logger.error("error: %s Exit code %d: the same command goes on.", what, STOOD)
    end_processes(children())
    os._exit(STOOD)


def end_processes(pids: Iterable[int]) -> None:
    """Let each write where its threads are, then kill it."""
    for number, grace_s in ((signal.SIGUSR2, 1.0), (signal.SIGKILL, 0.0)):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        time.sleep(grace_s)


def pass_on(number: int, frame: FrameType | None) -> None:
    """Hand a signal to the ranks and wait for them to end; without ranks there is nothing to wait for."""
    ranks = children()
    if not ranks:
        sys.exit(128 + number)
    for pid in ranks:
        os.kill(pid, number)


def children() -> list[int]:
    """Processes that this one started and that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):  # it ended while we looked
            continue
        if int(parent) == os.getpid() and state != "Z":
            found.append(int(stat.parent.name))
    return found


def first_failure(failures: Mapping[int, Any]) -> int:
    """The rank that failed first; the others usually failed because it was gone."""

    def failed_at(rank: int) -> float:
        # a rank that raised wrote its error file then; one that was killed wrote none, and was noticed a
        # moment later, in whole seconds
        file = Path(failures[rank].error_file)
        return file.stat().st_mtime if file.is_file() else failures[rank].timestamp - 1

    return min(failures, key=failed_at)


def report(failures: Mapping[int, Any], logs: Path) -> int:
    """Show the error of the rank that failed first; its exit code."""
    rank = first_failure(failures)
    failure = failures[rank]
    if failure.exitcode == STOPPED:
        return STOPPED
    code = failure.exitcode
    if code == -signal.SIGTERM and Path(failure.error_file).is_file():
        code = 1  # it raised, and was ended before it could leave, as another rank had left
    said = last_lines(logs, failure.local_rank)
    if code < 0:
        what = f"killed by {failure.signal_name()}{GUESSES.get(-code, '')}"
    else:
        raised, last = exception(failure), said.pop() if said else "it said nothing"
        what = f"exit code {code}: {raised or last}"
        if raised and not last.endswith(
            raised.partition(": ")[2]
        ):  # torch puts "[rank0]: " before what a rank says of its error
            said.append(last)
    logger.error("error: rank %d of %s failed first: %s", rank, socket.gethostname(), what)
    if said:
        logger.error("\n    ".join(["the end of its output before:", *said]))
    others = ", ".join(str(other) for other in sorted(failures) if other != rank)
    logger.error("output of all ranks: %s%s", logs, f" (rank {others} failed after it)" if others else "")
    return code if code > 0 else 128 - code


def exception(failure: Any) -> str | None:
    """What a rank raised, as its error file says; None where it did not get to write one."""
    file = Path(failure.error_file)
    return json.loads(file.read_text())["message"]["message"] if file.is_file() else None


def last_lines(logs: Path, local_rank: int) -> list[str]:
    """What a rank said last: on stderr, else on stdout."""
    for stream in ("stderr", "stdout"):
        for file in logs.glob(f"*/attempt_*/{local_rank}/{stream}.log"):
            lines = file.read_bytes().decode(errors="replace").split("\n")
            said = [
                line.rstrip().rsplit("\r", 1)[-1] for line in lines if line.strip()
            ]  # of a progress bar, its last state
            if said:
                return said[-SHOWN_LINES:]
    return []


if __name__ == "__main__":
    sys.exit(main())
