"""Training on two processes, hit again and again, must end where the quiet run ends.

    python benchmarks/chaos.py  # 3 runs of 60 updates, hit until they are done; about half an hour
    python benchmarks/chaos.py --runs 1 --updates 8 --hits kill_one truncate --seed 3
    python benchmarks/chaos.py --set retri_epoch=1 --set num_cands=20      # further settings go to both runs

Each start of a run is hit once, at a random update and a random moment within it:

    kill_one  SIGKILL to one rank  disk_full  no file may grow any more (RLIMIT_FSIZE of the ranks)
    kill_all  SIGKILL to launcher and ranks  truncate  SIGKILL to all, then the newest checkpoint is cut in
        two
    sigterm  SIGTERM to the launcher  shard_gone  SIGKILL to all, a shard is moved away, a start (must fail),
        moved back

Then the same command is given again. A hit counts as survived when the job ended as it should: by the signal,
with code 85 and the checkpoint saved, or with one clear error. Exit code 0: all hits survived and all final
weights are bit-identical to those of the quiet run.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from mmpt.checkpoints.weights import read_state_dict

ROOT = Path(__file__).resolve().parent.parent
STOPPED = 85
PATIENCE = 300  # seconds without the awaited update, or for an end
UPDATE = re.compile(r'"num_updates": "(\d+)"')
RESUMED = re.compile(r"resuming from (\S+);")
AT = re.compile(r"Loaded checkpoint \S+ \(epoch \d+ @ (\d+) updates\)")
ERROR = re.compile(r"^error: .*", re.M)


@dataclass
class Job:
    """One start of a run, its output in a file."""

    words: list[str]
    log: Path
    run: Path
    process: subprocess.Popen = field(init=False)

    def __post_init__(self) -> None:
        with open(self.log, "w") as file:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            self.process = subprocess.Popen(
                self.words,
                cwd=ROOT,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment,
            )

    def output(self) -> str:
        """What it has said so far."""
        return self.log.read_text(errors="replace")

    def updates(self) -> int:
        """The last update it has logged."""
        return max(map(int, UPDATE.findall(self.output())), default=0)

    def errors(self) -> list[str]:
        """What it says went wrong, one text per failure shown."""
        return ERROR.findall(self.output())

    def resumed_at(self) -> int:
        """The update it went on from."""
        found = AT.findall(self.output())
        return int(found[0]) if found else 0

    def reaches(self, update: int) -> bool:
        """Wait until `update` is logged; False when the job ended before."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < deadline:
            if self.updates() >= update:
                return True
            time.sleep(0.05)
        if self.process.poll() is None:
            self.kill()
            raise TimeoutError(f"update {update} did not come in {PATIENCE} s; see {self.log}")
        return False

    def ends(self) -> int:
        """Wait for the end; the exit code."""
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError(
                f"the job did not end within {PATIENCE} s after it was hit; see {self.log}"
            ) from None

    def ranks(self) -> list[int]:
        """Process ids of the ranks."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
            except OSError:  # it has ended
                continue
            is_rank = any(word.endswith((b"train.py", b"fairseq_train")) for word in words) and not any(
                b"nproc_per_node" in word for word in words
            )
            if is_rank and any(str(self.run).encode() in word for word in words):
                found.append(int(path.parent.name))
        return sorted(found)

    def kill(self) -> None:
        """SIGKILL to launcher and ranks."""
        for pid in [self.process.pid, *self.ranks()]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:  # it has ended
                continue
        self.process.wait()


@dataclass
class Chaos:
    """A world, a way to train on it, and what has happened so far."""

    world: Path
    folder: Path
    updates: int
    settings: list[str]
    rng: random.Random
    table: list[tuple] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def words(self, run: Path) -> list[str]:
        """The command of a run: always the same."""
        values = {
            "dataset.bert_name": self.world / "model",
            "dataset.train_path": self.world / "how2/how2_s3d_train.lst",
            "dataset.val_path": self.world / "how2/how2_s3d_val.lst",
            "dataset.vfeat_dir": self.world / "how2/feat",
            "dataset.tfeat_dir": f"{self.world}/how2/feat/narration.",
            "dataset.num_video_per_batch": 4,
            "loss.global_negatives": "true",
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
        settings = [f"{key}={value}" for key, value in values.items()] + self.settings
        words = [word for setting in settings for word in ("--set", setting)]
        return [
            sys.executable,
            "locallaunch.py",
            "projects/toy/norton.yaml",
            "--jobtype",
            "local_small",
            "--cpu",
            *words,
        ]

    def start(self, run: Path) -> Job:
        """Start or go on with a run."""
        run.mkdir(exist_ok=True)
        return Job(self.words(run), run / f"output{len(list(run.glob('output*')))}.txt", run)

    def quiet(self) -> dict[str, torch.Tensor]:
        """Final weights of a run that nothing disturbs."""
        job = self.start(self.folder / "quiet")
        if job.ends():
            sys.exit(f"the quiet run failed:\n{job.output()[-3000:]}")
        return weights(job.run)

    def hit_until_done(self, run: Path, hits: list[str]) -> None:
        """Start, hit, start again, until the hits are used up or the run is done."""
        before = 0
        for hit in hits:
            job = self.start(run)
            if not job.reaches(
                self.rng.randint(
                    before + 1, max(before + 1, min(before + 1 + self.updates // 4, self.updates - 2))
                )
            ):
                self.table.append(
                    (
                        run.name,
                        f"({hit}: done before)",
                        job.resumed_at(),
                        job.updates() or "-",
                        job.process.returncode,
                        "",
                    )
                )
                break
            time.sleep(self.rng.random() * 0.5)
            reached = job.updates()
            code = HITS[hit](self, job)
            self._note(run, hit, job, reached, code)
            before = reached
            if reached > self.updates:
                self.failures.append(
                    f"{run.name}: trained {reached} updates instead of {self.updates}; see {job.log}"
                )
        job = self.start(run)
        if job.ends():
            self.failures.append(
                f"{run.name}: the last start ended with {job.process.returncode}; see {job.log}"
            )

    def _note(self, run: Path, hit: str, job: Job, reached: int, code: int) -> None:
        errors, expected = job.errors(), EXPECTED[hit]
        finished = code == 0 and reached >= self.updates - 1  # it was done before the hit took effect
        if code not in expected and not finished:
            self.failures.append(
                f"{run.name}: after {hit} the job ended with {code}, expected {expected}; see {job.log}"
            )
        if hit in ("kill_one", "disk_full") and not finished and len(errors) != 1:
            self.failures.append(
                f"{run.name}: after {hit} {len(errors)} errors were shown, expected one; see {job.log}"
            )
        said = errors[0].split("failed first: ")[-1][:100] if errors else ""
        self.table.append((run.name, hit, job.resumed_at(), reached, code, said))


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Those of the last checkpoint."""
    return read_state_dict(run / "checkpoint_last.pt")


def kill_one(chaos: Chaos, job: Job) -> int:
    """One rank dies; the launcher must notice, end the other and say which."""
    ranks = job.ranks()
    if ranks:
        os.kill(chaos.rng.choice(ranks), signal.SIGKILL)
    return job.ends()


def kill_all(chaos: Chaos, job: Job) -> int:
    """The machine goes down."""
    job.kill()
    return job.process.returncode


def sigterm(chaos: Chaos, job: Job) -> int:
    """The cluster wants its nodes back."""
    job.process.send_signal(signal.SIGTERM)
    return job.ends()


def disk_full(chaos: Chaos, job: Job) -> int:
    """From now on no rank can write a checkpoint."""
    for pid in job.ranks():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))
    return job.ends()


def truncate(chaos: Chaos, job: Job) -> int:
    """The machine goes down, and half of the newest checkpoint never reached the disk."""
    job.kill()
    newest = job.run / "checkpoint_last.pt"
    if newest.exists():
        os.truncate(newest, newest.stat().st_size // 2)
    return job.process.returncode


def shard_gone(chaos: Chaos, job: Job) -> int:
    """A file server is away when the job comes back: one clear error, and nothing lost."""
    job.kill()
    shard = chaos.world / "how2/feat/train_1_data.npy"
    away = shard.with_suffix(".away")
    shard.rename(away)
    try:
        again = chaos.start(job.run)
        code = again.ends()
    finally:
        away.rename(shard)
    errors = again.errors()
    if code != 1 or len(errors) != 1 or f"{shard}: no such shard file" not in errors[0]:
        chaos.failures.append(
            f"{job.run.name}: without {shard.name} the start ended with {code} and {len(errors)} errors; "
            f"see {again.log}"
        )
    return job.process.returncode


HITS: dict[str, Callable[[Chaos, Job], int]] = {
    hit.__name__: hit for hit in (kill_one, kill_all, sigterm, disk_full, truncate, shard_gone)
}
EXPECTED = {
    "kill_one": (128 + signal.SIGKILL,),
    "kill_all": (-signal.SIGKILL,),
    "sigterm": (STOPPED,),
    "disk_full": (1,),
    "truncate": (-signal.SIGKILL,),
    "shard_gone": (-signal.SIGKILL,),
}


def main() -> int:
    """Command line; 0 when nothing was lost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--updates", type=int, default=60, help="length of a run")
    parser.add_argument("--rounds", type=int, default=12, help="hits of a run, at most")
    parser.add_argument("--hits", nargs="+", choices=HITS, default=list(HITS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    parser.add_argument("--world", type=Path, help="an embedded world (default: a tiny one is made)")
    parser.add_argument("--keep", type=Path, help="keep runs and outputs in this folder")
    args = parser.parse_args()
    folder = args.keep or Path(tempfile.mkdtemp(prefix="mmpt_chaos_"))
    folder.mkdir(parents=True, exist_ok=True)
    world = args.world
    if world is None:
        world = folder / "world"
        subprocess.run(
            [sys.executable, "-m", "mmpt_cli.make_data", "--out", str(world), "--size", "tiny"],
            cwd=ROOT,
            check=True,
        )
    chaos = Chaos(world.resolve(), folder.resolve(), args.updates, args.settings, random.Random(args.seed))
    begin, expected = time.monotonic(), chaos.quiet()
    for number in range(args.runs):
        hits = list(
            itertools.islice(itertools.cycle(chaos.rng.sample(args.hits, len(args.hits))), args.rounds)
        )
        run = chaos.folder / f"run{number}"
        chaos.hit_until_done(run, hits)
        compare(chaos, run, expected)
    report(chaos, args.runs, time.monotonic() - begin)
    if not args.keep and not chaos.failures:
        shutil.rmtree(folder)
    return 1 if chaos.failures else 0


def compare(chaos: Chaos, run: Path, expected: dict[str, torch.Tensor]) -> None:
    """Note the tensors that differ from the quiet run's."""
    found = weights(run)
    different = [
        name for name in expected if name not in found or not torch.equal(found[name], expected[name])
    ]
    if different or len(found) != len(expected):
        chaos.failures.append(
            f"{run.name}: {len(different)} of {len(expected)} tensors differ from the quiet run's, e.g. "
            f"{different[:2]}"
        )


def report(chaos: Chaos, runs: int, seconds: float) -> None:
    """All hits, and what they cost."""
    print(
        "\n| run | hit | went on from update | hit at update | exit code | what it said "
        "|\n|---|---|---|---|---|---|"
    )
    for row in chaos.table:
        print("| " + " | ".join(map(str, row)) + " |")
    resumes = sum(
        1 for log in chaos.folder.glob("run*/output*.txt") if RESUMED.search(log.read_text(errors="replace"))
    )
    for failure in chaos.failures:
        print(f"LOST {failure}")
    print(f"\n{runs} runs of {chaos.updates} updates in {seconds:.0f} s")
    hits = sum(1 for row in chaos.table if row[1] in HITS)
    print(f"{hits} hits, {resumes} resumes, {len(chaos.failures)} losses")


if __name__ == "__main__":
    sys.exit(main())
