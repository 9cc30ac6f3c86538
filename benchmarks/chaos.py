"""Training on two processes, hit again and again, must end where the quiet run ends.

    python benchmarks/chaos.py --seconds 3600 --ledger chaos.jsonl   # goes on where the ledger ends
    python benchmarks/chaos.py --hits 12 --seed 3 --kinds kill_one hang_rank
    python benchmarks/chaos.py --table chaos.jsonl                   # the table of the docs

A run is one experiment of a few updates in a folder of its own. It is started by the launcher, hit at a
random update and a random moment within it, started again with the same command, and so on until it is done:

    kill_one    SIGKILL to one rank                     hang_rank    SIGSTOP to one rank, for good
    kill_all    SIGKILL to launcher and ranks           lost_link    the network between the ranks goes down
    sigterm     SIGTERM to the launcher                 slow_rank    a rank stops for up to a second
    disk_full   no file may grow any more               slow_disk    every sync takes a third of a second
    truncate    SIGKILL, newest checkpoint cut          clock_step   the clock jumps by up to a year
    bit_flip    SIGKILL, a bit of it flipped            second_job   the same command, started beside it
    save_lost   SIGKILL to all while saving             nan_features features become NaN while it runs
    shard_gone  SIGKILL, a start without a shard        shard_cut    a shard becomes shorter while it runs
    shard_other SIGKILL, a start with another's content other_ranks  SIGKILL, some updates on one process

A hit is survived when the job ends as it should (exit code, one line that says why) or goes on. A run is
right when its final weights are those of the quiet run: bit by bit, or to the rounding of float32 where
another number of processes did some of its updates. Exit code 0: nothing lost, wrong or hung.

Launcher and ranks are forks of this process, which has imported torch and fairseq, so that a start takes a
second. All else is what `mmpt train` does. The network is a namespace of this process's own; where the kernel
allows none, lost_link is left out.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import inspect
import json
import logging
import mmap
import multiprocessing.util
import os
import random
import re
import resource
import runpy
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import fairseq_cli.train  # noqa: E402, F401  (in the order of train.py)
import torch  # noqa: E402
import torch.distributed.run  # noqa: E402
from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler  # noqa: E402

import mmpt.fairseq_plugin  # noqa: E402, F401
from benchmarks.measured import command_line, publish  # noqa: E402
from mmpt.checkpoints.shards import named_by  # noqa: E402
from mmpt.checkpoints.weights import read_outline, read_state_dict  # noqa: E402
from mmpt.demo.toy_runs import move_folders  # noqa: E402
from mmpt.launch.heartbeat import STOOD  # noqa: E402
from mmpt.launch.torchrun import STOPPED  # noqa: E402

PROJECT = "projects/toy/norton.yaml"
PATIENCE_S = 90  # without the awaited update, or for an end
ROUNDING = 1e-5  # distance of weights, of which some updates were done by another number of processes
TIMEOUT_S = 10  # job.timeout of the runs
RESUMED = re.compile(r"Loaded checkpoint \S+ \(epoch \d+ @ (\d+) updates\)")
ERROR = re.compile(r"^error: .*", re.M)
PR_SET_PDEATHSIG = 1  # linux/prctl.h
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000  # linux/sched.h
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1  # linux/sockios.h, linux/if.h


class Weather:
    """What clock and disk of all ranks are like; shared with every fork."""

    def __init__(self) -> None:
        self.shared = mmap.mmap(-1, 16)
        self.set()

    def set(self, clock_s: float = 0.0, sync_s: float = 0.0) -> None:
        """How far the clock is off, and how long a sync takes besides."""
        self.shared[:] = struct.pack("dd", clock_s, sync_s)

    def apply(self) -> None:
        """In a fork."""
        true_time, true_sync = time.time, os.fsync

        def sync(descriptor: int) -> None:
            time.sleep(struct.unpack("dd", self.shared[:])[1])
            true_sync(descriptor)

        time.time = lambda: true_time() + struct.unpack("dd", self.shared[:])[0]
        os.fsync = sync


WEATHER = Weather()
_Popen = subprocess.Popen


class Fork:
    """`python -m MODULE ...` as a fork of this process; the part of `subprocess.Popen` that launchers use."""

    def __init__(
        self,
        words: Sequence[str],
        env: dict | None = None,
        stdout: Any = None,
        stderr: Any = None,
        preexec_fn: Callable | None = None,
        start_new_session: bool = False,
        **others: Any,
    ):
        sys.stdout.flush()
        sys.stderr.flush()
        self.args, self.returncode = words, None
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                _become(stdout, stderr, preexec_fn, start_new_session, env)
                code = _run_module(list(words))
            finally:
                os._exit(code)

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(0.005)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Where it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)


def _become(stdout: Any, stderr: Any, preexec: Callable | None, session: bool, env: dict | None) -> None:
    """What `subprocess` does between fork and exec."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    out = stdout.fileno() if stdout is not None else 1
    err = out if stderr == subprocess.STDOUT else stderr.fileno() if stderr is not None else 2
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.closerange(3, 512)
    if session:
        os.setsid()
    if preexec:
        preexec()
    if env is not None:
        os.environ.clear()
        os.environ.update(env)


def _run_module(words: list[str]) -> int:
    """Run a Python command line in this process; its exit code."""
    subprocess.Popen = subprocess_handler.Popen = _popen
    inspect.getmodule = lambda *frame: (
        None
    )  # torchrun asks for each metric, which takes long with all imported
    place = words.index("-m")
    sys.argv = [words[place + 1], *words[place + 2 :]]
    try:
        runpy.run_module(words[place + 1], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    multiprocessing.util._exit_function()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _popen(args: Any, **others: Any) -> Any:
    is_python = not isinstance(args, str) and args[0] == sys.executable and "-m" in args[1:3]
    if is_python and args[2 if args[1] == "-u" else 1] == "-m":
        return Fork(args, **others)
    return _Popen(args, **others)


def _begin_job() -> None:
    WEATHER.apply()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # with this process the job ends


@dataclass
class Job:
    """One start of a run, its output in a file."""

    words: list[str]
    log: Path
    run: Path
    process: Fork = field(init=False)

    def __post_init__(self) -> None:
        with open(self.log, "w") as file:
            self.process = Fork(
                self.words, dict(os.environ), file, subprocess.STDOUT, _begin_job, start_new_session=True
            )

    def output(self) -> str:
        """What it has said so far."""
        return self.log.read_text(errors="replace")

    def updates(self) -> int:
        """The last update that any start of the run has logged."""
        file = self.run / "metrics.jsonl"
        lines = file.read_text(errors="replace").splitlines() if file.is_file() else []
        return max((int(found[1]) for line in lines if (found := UPDATE.search(line))), default=0)

    def errors(self) -> list[str]:
        """What it says went wrong, one text per failure shown."""
        return ERROR.findall(self.output())

    def resumed_at(self) -> int:
        """The update it went on from."""
        found = RESUMED.findall(self.output())
        return int(found[0]) if found else 0

    def reaches(self, update: int) -> bool:
        """Wait until `update` is logged; False when the job ended before."""
        deadline = time.monotonic() + PATIENCE_S
        while self.process.poll() is None:
            if self.updates() >= update:
                return True
            if time.monotonic() > deadline:
                self.kill()
                raise Hung(f"update {update} did not come in {PATIENCE_S} s; see {self.log}")
            time.sleep(0.01)
        return False

    def ends(self) -> int:
        """Wait for the end; the exit code."""
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Hung(f"the job did not end within {PATIENCE_S} s; see {self.log}") from None

    def ranks(self) -> list[int]:
        """Process ids of the ranks: children of torchrun, which the launcher started."""
        return sorted(pid for agent in _children(self.process.pid) for pid in _children(agent))

    def kill(self) -> None:
        """SIGKILL to launcher and ranks."""
        pids = [self.process.pid, *_children(self.process.pid), *self.ranks()]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


UPDATE = re.compile(r'"tag": "train_inner", "update": (\d+)')


class Hung(RuntimeError):
    """A job neither went on nor ended."""


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:  # it has ended
        return []


class Network:
    """The loopback device of a network namespace of this process's own."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        user, group = os.getuid(), os.getgid()
        self.ours = libc.unshare(CLONE_NEWNET) == 0  # root may
        if not self.ours and libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0:
            self.ours = True
            for name, text in (
                ("setgroups", "deny"),
                ("uid_map", f"0 {user} 1"),
                ("gid_map", f"0 {group} 1"),
            ):
                Path(f"/proc/self/{name}").write_text(text)
        if self.ours:
            self.set(True)
            os.environ["GLOO_SOCKET_IFNAME"] = "lo"

    def set(self, up: bool) -> None:
        """Up or down."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            request = struct.pack("16sh14x", b"lo", 0)
            (flags,) = struct.unpack_from("h", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request), 16)
            flags = flags | IFF_UP if up else flags & ~IFF_UP
            fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags))


@dataclass(frozen=True)
class Kind:
    """A way to hit a job.

    Attributes:
        act: hits; returns whether the job is to end of it.
        codes: exit codes of a job that is to end; empty: it goes on.
        says: what its one error line contains; None: it may say anything, or nothing.
        costs: updates that may have to be done again.
        weight: how often, relative to others.
    """

    act: Callable[[Chaos, Job], None]
    codes: tuple[int, ...] = ()
    says: str | None = None
    costs: int = 2
    weight: float = 1.0


@dataclass
class Chaos:
    """A world, a way to train on it, and what has happened so far."""

    world: Path
    folder: Path
    updates: int
    settings: list[str]
    ledger: Path
    network: Network
    entries: list[dict] = field(default_factory=list)
    rng: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        if self.ledger.is_file():
            self.entries = [json.loads(line) for line in self.ledger.read_text().splitlines()]

    def note(self, **entry: Any) -> None:
        """Into the ledger."""
        self.entries.append(entry)
        with open(self.ledger, "a") as file:
            file.write(json.dumps(entry) + "\n")

    @property
    def shards(self) -> list[Path]:
        """The feature shards that training reads."""
        return sorted((self.world / "how2/feat").glob("train_*_data.npy"))

    def words(self, run: Path, processes: int = 2) -> list[str]:
        """The command of a run: always the same, but for the number of processes."""
        values = {
            "dataset.num_video_per_batch": 2,
            "dataset.global_batch": 2,
            "model.micro_batch": 16,  # of one item: dropout then goes by item, not by process
            "model.num_hidden_video_layers": 1,
            "loss.global_negatives": "true",
            "job.timeout": TIMEOUT_S,
            "job.start_timeout": 4 * TIMEOUT_S,
            "fairseq.checkpoint.save_dir": run,
            "fairseq.checkpoint.restore_file": "null",
            "fairseq.checkpoint.save_interval_updates": 1,
            "fairseq.checkpoint.keep_interval_updates": 3,
            "fairseq.optimization.max_update": self.updates,
            "fairseq.optimization.total_num_update": self.updates,
            "fairseq.optimization.warmup_updates": 2,
            "fairseq.dataset.disable_validation": "true",
            "fairseq.common.log_interval": 1,
        }
        settings = move_folders(PROJECT, {"data/toy": str(self.world)})
        settings += [*(f"{key}={value}" for key, value in values.items()), *self.settings]
        words = [word for setting in settings for word in ("--set", setting)]
        job = [PROJECT, "--nproc", str(processes), "--cpu"]
        return [sys.executable, "-m", "mmpt_cli", "train", *job, *words]

    def start(self, run: Path, processes: int = 2) -> Job:
        """Start or go on with a run."""
        run.mkdir(parents=True, exist_ok=True)
        return Job(self.words(run, processes), run / f"output{len(list(run.glob('output*')))}.txt", run)

    def quiet(self) -> dict[str, torch.Tensor]:
        """Final weights of a run that nothing disturbs."""
        run = self.folder / "quiet"
        job = self.start(run)
        if job.ends():
            sys.exit(f"the quiet run failed:\n{job.output()[-3000:]}")
        return read_state_dict(run / "checkpoint_last.pt")

    def run(self, number: int, kinds: Sequence[str], most: int, expected: dict[str, torch.Tensor]) -> None:
        """One run, hit until it is done, or `most` times."""
        self.rng = random.Random(f"chaos {number}")
        run = self.folder / f"run{number}"
        shutil.rmtree(run, ignore_errors=True)
        job, hits, stage = self.start(run), 0, "start"
        try:
            while True:
                stage = "start"
                last = self.updates - 2
                # by the third update the first is saved: what was not trained cannot be lost
                aim = min(max(3, job.updates() + self.rng.randint(1, 3)), max(last, job.updates() + 1))
                if hits >= most or not job.reaches(aim) or job.updates() >= last:
                    break
                stage = self.rng.choices(kinds, [KINDS[name].weight for name in kinds])[0]
                time.sleep(self.rng.random() * 0.1)
                job = self.hit(number, stage, job)
                hits += 1
            code = job.ends()
        except Hung as hung:
            self.note(run=number, verdict="hung", kind=stage, why=str(hung))
            return
        finally:
            self.calm()
        if code:
            verdict, why = "lost", f"the last start ended with {code}; see {job.log}"
        else:
            found = read_state_dict(run / "checkpoint_last.pt")
            of_run = {entry.get("kind") for entry in self.entries if entry["run"] == number}
            apart = distance(found, expected)
            same = apart <= ROUNDING if "other_ranks" in of_run else apart == 0
            verdict, why = ("right", "") if same else ("wrong", f"{apart:.1e} from the quiet run's: {run}")
        self.note(run=number, verdict=verdict, why=why)
        if verdict == "right":
            shutil.rmtree(run)

    def calm(self) -> None:
        """The weather is fine again."""
        WEATHER.set()
        if self.network.ours:
            self.network.set(True)

    def hit(self, number: int, name: str, job: Job) -> Job:
        """Hit a job; the job that goes on, after its first update that is new."""
        kind, reached, begin = KINDS[name], job.updates(), time.monotonic()
        kind.act(self, job)
        entry: dict[str, Any] = {"run": number, "kind": name, "update": reached, "wrong": ""}
        if kind.codes:
            entry["code"] = code = job.ends()
            self.calm()
            errors = job.errors()
            # it may have been done before the hit took effect
            if not (code == 0 and job.updates() >= self.updates - 1):
                if code not in kind.codes:
                    entry["wrong"] = f"exit code {code}, expected {kind.codes}; see {job.log}"
                elif kind.says is not None and not (len(errors) == 1 and kind.says in errors[0]):
                    entry["wrong"] = (
                        f"{len(errors)} errors shown, expected one with {kind.says!r}; see {job.log}"
                    )
            entry["said"] = errors[0][:200] if errors else ""
            reached = job.updates()
            job = self.start(job.run)
        if job.reaches(reached + 1) and kind.codes:
            entry["again"] = max(reached - job.resumed_at(), 0)
            if entry["again"] > kind.costs:
                entry["wrong"] = (
                    f"{entry['again']} updates done again, expected at most {kind.costs}; see {job.log}"
                )
        entry["recovery_s"] = round(time.monotonic() - begin, 2)
        self.note(**entry)
        return job


def kill_one(chaos: Chaos, job: Job) -> None:
    """One rank dies; the launcher must notice, end the other and say which."""
    for pid in chaos.rng.sample(job.ranks(), 1):
        os.kill(pid, signal.SIGKILL)


def kill_all(chaos: Chaos, job: Job) -> None:
    """The machine goes down."""
    job.kill()


def sigterm(chaos: Chaos, job: Job) -> None:
    """The cluster wants its nodes back."""
    job.process.send_signal(signal.SIGTERM)


def disk_full(chaos: Chaos, job: Job) -> None:
    """From now on no rank can write a checkpoint."""
    for pid in job.ranks():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))


def save_lost(chaos: Chaos, job: Job) -> None:
    """The machine goes down while a checkpoint is being written."""
    WEATHER.set(sync_s=0.1)
    deadline = time.monotonic() + 5
    while not list(job.run.glob("*.tmp")) and time.monotonic() < deadline and job.process.poll() is None:
        time.sleep(0.001)
    job.kill()


def truncate(chaos: Chaos, job: Job) -> None:
    """The machine goes down, and half of the newest checkpoint never reached the disk."""
    job.kill()
    for newest in _newest(job.run, chaos.rng):
        os.truncate(newest, newest.stat().st_size // 2)


def bit_flip(chaos: Chaos, job: Job) -> None:
    """The machine goes down, and the disk gives back another bit than it was given."""
    job.kill()
    for newest in _newest(job.run, chaos.rng):
        _flip(newest, chaos.rng)


def _newest(run: Path, rng: random.Random) -> list[Path]:
    """A file of the newest checkpoint; other names of it, which are the same data, need no second hit."""
    last = run / "checkpoint_last.pt"
    saved = {path.stat().st_ino for path in run.glob("checkpoint*.pt")}
    if len(saved) < 2 or not last.is_file():  # the only one has none before it
        return []
    parts = named_by(read_outline(last))
    return [rng.choice([last, *(sorted((run / parts).iterdir()) if parts else ())])]


def _flip(path: Path, rng: random.Random) -> None:
    with open(path, "r+b") as file:
        place = rng.randrange(path.stat().st_size)
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1 << rng.randrange(8)]))


def hang_rank(chaos: Chaos, job: Job) -> None:
    """A rank stands still for good."""
    for pid in chaos.rng.sample(job.ranks(), 1):
        os.kill(pid, signal.SIGSTOP)


def lost_link(chaos: Chaos, job: Job) -> None:
    """The ranks cannot reach each other any more."""
    chaos.network.set(False)


def slow_rank(chaos: Chaos, job: Job) -> None:
    """A rank stands still for a moment."""
    pids = chaos.rng.sample(job.ranks(), 1)
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        time.sleep(chaos.rng.random() if number == signal.SIGSTOP else 0)


def slow_disk(chaos: Chaos, job: Job) -> None:
    """The disk takes its time, for a while."""
    WEATHER.set(sync_s=0.3)
    time.sleep(0.5)
    WEATHER.set()


def clock_step(chaos: Chaos, job: Job) -> None:
    """Somebody sets the clock."""
    WEATHER.set(clock_s=chaos.rng.uniform(-1, 1) * 365 * 86400)


def second_job(chaos: Chaos, job: Job) -> None:
    """Somebody starts the same run a second time; it must be refused, and the first go on."""
    second = chaos.start(job.run)
    code, errors = second.ends(), second.errors()
    if job.process.poll() is None and (code == 0 or len(errors) != 1 or "in use by" not in errors[0]):
        raise Hung(f"the second job ended with {code} and {errors}; see {second.log}")


@contextlib.contextmanager
def _spoilt(path: Path) -> Iterator[bytes]:
    """A file that may be spoilt in place; it is whole again afterwards."""
    content = path.read_bytes()
    try:
        yield content
    finally:
        with open(path, "r+b") as file:
            file.write(content)


def other_ranks(chaos: Chaos, job: Job) -> None:
    """Fewer machines are free for a while."""
    reached = job.updates()
    job.kill()
    alone = chaos.start(job.run, processes=1)
    alone.reaches(min(reached + 2, chaos.updates - 1))
    alone.kill()


def shard_gone(chaos: Chaos, job: Job) -> None:
    """A file server is away when the job comes back: one clear error, and nothing lost."""
    job.kill()
    shard = chaos.rng.choice(chaos.shards)
    away = shard.with_suffix(".away")
    shard.rename(away)
    try:
        _refused(chaos, job, shard.name)
    finally:
        away.rename(shard)


def shard_other(chaos: Chaos, job: Job) -> None:
    """A shard has been replaced by another of the same size."""
    job.kill()
    shard = chaos.rng.choice(chaos.shards)
    with _spoilt(shard) as content, open(shard, "r+b") as file:
        file.seek(128)
        file.write(content[-1:127:-1])
        file.flush()
        _refused(chaos, job, shard.name)


def _refused(chaos: Chaos, job: Job, name: str) -> None:
    again = chaos.start(job.run)
    code, said = again.ends(), again.output()
    if code == 0 or len(again.errors()) != 1 or name not in said:
        raise Hung(f"a start with {name} spoilt ended with {code}; see {again.log}")


def nan_features(chaos: Chaos, job: Job) -> None:
    """Features turn into NaN under a running job: it must end before a checkpoint holds them."""
    _spoil_until_it_ends(chaos, job, lambda file, size: file.write(b"\xff" * (size - 128)))


def shard_cut(chaos: Chaos, job: Job) -> None:
    """A shard becomes shorter under a running job, which has it mapped."""
    _spoil_until_it_ends(chaos, job, lambda file, size: file.truncate(128))


def _spoil_until_it_ends(chaos: Chaos, job: Job, spoil: Callable[[Any, int], Any]) -> None:
    with contextlib.ExitStack() as whole_again:
        for shard in chaos.shards:
            whole_again.enter_context(_spoilt(shard))
            with open(shard, "r+b") as file:
                file.seek(128)
                spoil(file, shard.stat().st_size)
        job.ends()


KILLED, BUS = 128 + signal.SIGKILL, 128 + signal.SIGBUS
KINDS: dict[str, Kind] = {
    "kill_one": Kind(kill_one, (KILLED,), "failed first: killed by SIGKILL"),
    "kill_all": Kind(kill_all, (-signal.SIGKILL,)),
    "sigterm": Kind(sigterm, (STOPPED,), costs=0),
    "disk_full": Kind(disk_full, (1,), "could not be written"),
    "save_lost": Kind(save_lost, (-signal.SIGKILL,)),
    "truncate": Kind(truncate, (-signal.SIGKILL,), costs=3),
    "bit_flip": Kind(bit_flip, (-signal.SIGKILL,), costs=3),
    "hang_rank": Kind(hang_rank, (STOOD,), "it is stopped by a signal", weight=0.3),
    "lost_link": Kind(lost_link, (STOOD,), "stand still since", weight=0.2),
    "slow_rank": Kind(slow_rank, weight=1.5),
    "slow_disk": Kind(slow_disk, weight=1.5),
    "clock_step": Kind(clock_step, weight=1.5),
    "second_job": Kind(second_job),
    "other_ranks": Kind(other_ranks, (-signal.SIGKILL,)),
    "shard_gone": Kind(shard_gone, (-signal.SIGKILL,)),
    "shard_other": Kind(shard_other, (-signal.SIGKILL,)),
    "nan_features": Kind(nan_features, (1,), "", weight=0.5),
    "shard_cut": Kind(shard_cut, (1, BUS), "", weight=0.5),  # opened too short, or cut while mapped
}


TOLD = {  # what is done, and how the job that it hits ends
    "kill_one": ("SIGKILL to one rank", "137, one error that names rank and signal"),
    "kill_all": ("SIGKILL to launcher and ranks", "-"),
    "sigterm": ("SIGTERM to the launcher", "85, checkpoint saved"),
    "disk_full": ("no file may grow any more", "1, one error that names checkpoint and free space"),
    "save_lost": ("SIGKILL to all while a checkpoint is written", "-; the one before is taken"),
    "truncate": ("SIGKILL, then the newest checkpoint is cut in two", "-; the one before is taken"),
    "bit_flip": ("SIGKILL, then a bit of it is flipped", "-; the one before is taken, if the bit counts"),
    "hang_rank": ("SIGSTOP to a rank, for good (`job.timeout` 10 s)", "86, one error that names the rank"),
    "lost_link": ("the network between the ranks goes down", "86, one error that says so"),
    "slow_rank": ("SIGSTOP to a rank for up to a second", "goes on"),
    "slow_disk": ("every sync takes 0.3 s", "goes on"),
    "clock_step": ("the clock jumps by up to a year", "goes on"),
    "second_job": ("the same command is started beside it", "goes on; the second is refused"),
    "other_ranks": ("SIGKILL, then some updates on one process", "-"),
    "shard_gone": ("SIGKILL, a start without a shard", "1, one error that names the shard"),
    "shard_other": ("SIGKILL, a start with other content in a shard", "2, refused with its name"),
    "nan_features": ("features become NaN while it runs", "1, one error that names the video"),
    "shard_cut": ("shards become shorter while it runs", "135 or 1, one error"),
}


def main() -> int:
    """Command line; 0 when nothing was lost."""
    parser = command_line(__doc__)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after the run in hand then")
    parser.add_argument("--hits", type=int, help="end after so many (default: none with --seconds, else 100)")
    parser.add_argument("--updates", type=int, default=24, help="length of a run")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seed", type=int, default=0, help="number of the first run")
    parser.add_argument("--ledger", type=Path, help="one line per hit and run; goes on where it ends")
    parser.add_argument("--table", type=Path, help="only show the table of this ledger")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    parser.add_argument("--world", type=Path, help="a synthetic world (default: a tiny one is made)")
    args = parser.parse_args()
    if args.table:
        return report([json.loads(line) for line in args.table.read_text().splitlines()], args.record)
    limit = args.hits or (100 if args.seconds == float("inf") else sys.maxsize)
    folder = Path(tempfile.mkdtemp(prefix="mmpt_chaos_"))
    world = folder / "world"
    if args.world:
        shutil.copytree(args.world, world)  # it is going to be spoilt
    else:
        from mmpt_cli.make_data import main as make_data

        make_data(["--out", str(world), "--size", "tiny"])
    small = world / "model/config.json"
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    small.write_text(json.dumps(json.loads(small.read_text()) | sizes))
    os.chdir(ROOT)
    torch.set_num_threads(1)
    network = Network()
    kinds = [kind for kind in args.kinds if kind != "lost_link" or network.ours]
    chaos = Chaos(world, folder, args.updates, args.settings, args.ledger or folder / "ledger.jsonl", network)
    begin, expected = time.monotonic(), chaos.quiet()
    number = args.seed + sum("verdict" in entry for entry in chaos.entries)
    start = hits_of(chaos.entries)
    while (left := limit - (hits_of(chaos.entries) - start)) > 0 and time.monotonic() - begin < args.seconds:
        chaos.run(number, kinds, left, expected)
        number += 1
    print(f"{time.monotonic() - begin:.0f} s; outputs of what was not right: {folder}")
    code = report(chaos.entries, args.record)
    if not code:
        shutil.rmtree(folder)
    return code


def distance(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Norm of the difference over norm of the weights; infinite where they have other names."""
    if found.keys() != expected.keys():
        return float("inf")
    one, other = (torch.cat([w[name].double().flatten() for name in expected]) for w in (found, expected))
    return float((one - other).norm() / other.norm())


def hits_of(entries: list[dict]) -> int:
    """How many hits a ledger holds."""
    return sum("update" in entry for entry in entries)


def report(entries: list[dict], record: str | None) -> int:
    """The table by kind, and what was lost."""
    hits = [entry for entry in entries if "update" in entry]
    runs = [entry for entry in entries if "verdict" in entry]
    rows = [
        [
            "hit",
            "times",
            "the job ends with",
            "wrong",
            "recovery, median",
            "longest",
            "updates done again, mean",
        ]
    ]
    for name in [*KINDS, "all"]:
        of_kind = [entry for entry in hits if name in ("all", entry["kind"])]
        if not of_kind:
            continue
        times = [entry["recovery_s"] for entry in of_kind]
        again = [entry["again"] for entry in of_kind if "again" in entry]
        wrong = sum(bool(entry["wrong"]) for entry in of_kind)
        mean = f"{statistics.mean(again):.1f}" if again else "0"
        what, ends = TOLD.get(name, (name, ""))
        took = [f"{seconds:.1f} s" for seconds in (statistics.median(times), max(times))]
        rows.append([what, len(of_kind), ends, wrong, *took, mean])
    bad = [entry for entry in hits if entry["wrong"]] + [e for e in runs if e["verdict"] != "right"]
    for entry in bad:
        print("BAD", json.dumps(entry))
    count = {
        word: sum(entry["verdict"] == word for entry in runs) for word in ("right", "lost", "wrong", "hung")
    }
    told = ", ".join(f"{number} {word}" for word, number in count.items())
    title = f"{len(hits)} hits in {len(runs)} runs: {told}"
    publish(record, {title: rows}, {"runs": count}, setting="two processes", timed=False)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
