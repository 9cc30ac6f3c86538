"""What keeping jobs honest costs: the stall of a save, and of the hash of the gradient; what a replay finds.

    python benchmarks/jobs.py                          # all of it; about ten minutes
    python benchmarks/jobs.py --only stall hash        # parts
    python benchmarks/jobs.py --only planted --run runs/toy/norton      # after ./run.sh

stall: a state of model and Adam moments is saved while "training" (matrix products on one thread) goes on:
    the copy alone, how long the call returns after it, how long a write would have stopped training, and how
    much slower products are while the thread writes.
hash: the hash of a gradient against the forward and backward pass of the same model, interleaved.
step: an update of Norton's loss on the synthetic data, without and with all that is done beside it.
planted: the model that the main job trains; for each trial a video of a batch is spoilt (features of noise,
    captions half a video too late), and its place by what it adds to the loss noted.
replayed: runs of 250 updates on one and on two processes, killed twice each and made again; the 100 hashes
    that they logged.
"""

from __future__ import annotations

import functools
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.measured import command_line, of_rows, publish, seconds  # noqa: E402
from mmpt.demo.toy_runs import move_folders  # noqa: E402

PROJECT = ROOT / "projects/toy/norton.yaml"

TITLES = {
    "stall": "A save: the copy alone, the call, what writing would have taken; a step alone, and beside it",
    "hash": "The hash of the gradients, and a step",
    "step": "An update of Norton's loss without and with all of it, interleaved pairs",
    "planted": "A spoilt video among those of its batch: its place by what it adds to loss and gradient",
    "replayed": "Updates made again, after kills: hashes that are equal",
}


def stall(megabytes: tuple[int, ...] = (64, 512), repeats: int = 7) -> list[dict]:
    """A save against the copy it cannot do without."""
    from fairseq.dataclass.configs import CheckpointConfig

    import mmpt.fairseq_plugin  # noqa: F401  (repairs fairseq)
    from mmpt.config import Config
    from mmpt.fairseq_plugin import checkpoint_files, saving

    x, rows = torch.randn(384, 384), []
    wall = functools.partial(seconds, clock=time.perf_counter)

    def step() -> None:
        for _ in range(8):
            x @ x

    for size in megabytes:
        tensors = [torch.randn(2**18) for _ in range(size)]  # 1 MiB each
        state = {"model": dict(enumerate(tensors)), "extra_state": {}}
        trainer = SimpleNamespace(
            data_parallel_rank=0,
            should_save_checkpoint_on_current_rank=True,
            checkpoint_suffix="",
            task=SimpleNamespace(config=Config()),
            consolidate_optimizer=lambda: None,
            get_num_updates=lambda: 1,
            state_dict=lambda state=state: {**state, "extra_state": {}},
        )
        epoch = SimpleNamespace(epoch=1, end_of_epoch=lambda: False, state_dict=dict)
        found = {"copy": [], "call": [], "write": [], "quiet step": [], "step beside": []}
        with tempfile.TemporaryDirectory() as folder:
            cfg = CheckpointConfig(save_dir=folder, save_interval_updates=1)
            for _ in range(repeats):
                found["copy"].append(wall(lambda: saving.copy_of(state)))
                found["write"].append(
                    wall(lambda: checkpoint_files.save(state, f"{folder}/checkpoint_sync.pt"))
                )
                found["quiet step"] += [wall(step) for _ in range(20)]
                found["call"].append(wall(lambda: saving.save_checkpoint(cfg, trainer, epoch, None)))
                while any(thread.name == "checkpoint writer" for thread in threading.enumerate()):
                    found["step beside"].append(wall(step))
                saving.writer.wait()
        rows.append({"MiB": size} | {f"{key}, ms": 1e3 * statistics.median(v) for key, v in found.items()})
        rows[-1]["steps beside"] = len(found["step beside"])
    return rows


def hash_cost(repeats: int = 15) -> list[dict]:
    """The hash against a step."""
    from mmpt.models.bert import BertConfig, BertModel
    from mmpt.ops.fingerprint import fingerprint

    rows = []
    for layers, width, batch in ((2, 64, 64), (4, 256, 32), (6, 768, 8)):
        heads = max(width // 64, 1)
        config = BertConfig(
            num_hidden_layers=layers,
            hidden_size=width,
            intermediate_size=4 * width,
            num_attention_heads=heads,
        )
        model = BertModel(config)
        tokens, mask = torch.randint(config.vocab_size, (batch, 32)), torch.ones(batch, 32, dtype=torch.bool)

        def step(model: BertModel = model, tokens=tokens, mask=mask) -> None:
            model.zero_grad()
            model(tokens, mask).square().mean().backward()

        parameters = list(model.parameters())
        step()
        steps, hashes = [], []
        for _ in range(repeats):
            steps.append(seconds(step))
            hashes.append(seconds(lambda p=parameters: fingerprint(x.grad for x in p)))
        row = {"parameters": sum(p.numel() for p in parameters), "tensors": len(parameters)}
        row |= {"step, ms": 1e3 * statistics.median(steps), "hash, ms": 1e3 * statistics.median(hashes)}
        rows.append(row | {"hash / step": row["hash, ms"] / row["step, ms"]})
    return rows


def step_cost(pairs: int = 30) -> list[dict]:
    """An update of Norton's loss on the synthetic data, without and with what is done for honesty: draws by
    place, the hash as often as training takes it."""
    from mmpt.config import load_config
    from mmpt.fairseq_plugin.replay import HASH_STRIDE
    from mmpt.ops.fingerprint import fingerprint
    from mmpt.tasks import Place, build_task
    from mmpt_cli.make_data import main as make_data

    with tempfile.TemporaryDirectory() as name:
        make_data(["--out", f"{name}/world", "--size", "tiny"])
        settings = [*move_folders(PROJECT, {"data/toy": f"{name}/world"}), "dataset.num_video_per_batch=8"]
        task = build_task(load_config(PROJECT, settings))
        model, dataset = task.build_model(), task.build_dataset("train")
        batch = dataset.collate([dataset[0]])

    def forward(**inputs: torch.Tensor) -> dict:
        return task.forward(model, inputs)

    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
    times: dict[bool, list[float]] = {False: [], True: []}

    def update(number: int, honest: bool) -> None:
        task.place = Place(1, number, 0, 1) if honest else None
        optimizer.zero_grad()
        task(forward, batch).loss.backward()
        if honest and number % HASH_STRIDE == 0:
            fingerprint(parameter.grad for parameter in model.parameters())
        optimizer.step()

    model.train()
    for pair in range(pairs + 1):
        for honest in (False, True) if pair % 2 else (True, False):
            took = [seconds(lambda n=n, h=honest: update(n, h)) for n in range(HASH_STRIDE)]
            times[honest].append(sum(took) / HASH_STRIDE)
    plain, honest = (statistics.median(times[which][1:]) for which in (False, True))
    ratios = [b / a for a, b in zip(times[False][1:], times[True][1:], strict=True)]
    row = {"plain, ms": 1e3 * plain, "with it, ms": 1e3 * honest, "median ratio": statistics.median(ratios)}
    return [row | {"pairs": pairs, "updates each": HASH_STRIDE}]


def planted(run: str = "runs/toy/norton", trials: int = 20, seed: int = 0) -> list[dict]:
    """Spoilt videos, and the place at which they stand among those of their batch."""
    from mmpt.checkpoints.weights import load_weights
    from mmpt.config import load_config
    from mmpt.tasks import build_task
    from mmpt.tasks.shares import item_shares

    rng, rows = np.random.default_rng(seed), []
    task = build_task(load_config(f"{run}/config.yaml"))
    model, dataset = task.build_model(), task.build_dataset("train")
    load_weights(model, f"{run}/checkpoint_last.pt")
    model.train()
    for trial in range(trials):
        dataset.set_epoch(100 + trial)
        task.begin_epoch(dataset, 100 + trial, model)
        index = int(rng.integers(len(dataset)))
        batch = dataset.collate([dataset[index]])
        bad = int(rng.integers(batch["vfeats"].shape[1]))
        kind = ("noise", "late captions")[trial % 2]
        torch.manual_seed(trial)
        clean = item_shares(task, model, batch, [index])
        _spoil(batch, bad, kind, rng)
        found = item_shares(task, model, batch, [index])
        row = {"kind": kind, "of": len(found)}
        for which, shares in (("place", found), ("place unspoilt", clean)):
            row[which] = 1 + sum(share.loss > shares[bad].loss for share in shares)
            row[f"{which} by norm"] = 1 + sum(share.norm > shares[bad].norm for share in shares)
        rows.append(row)
    return rows


def replayed(updates: int = 250, kills: int = 2, seed: int = 0) -> list[dict]:
    """Runs of one and of two processes that are killed; all their updates made again, and some of those whose
    hash was logged also from the checkpoint before."""
    from mmpt.replay import read_log, repeat
    from mmpt_cli.make_data import main as make_data

    rng, rows = np.random.default_rng(seed), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_data(["--out", str(folder / "world"), "--size", "tiny"])
        for processes in (1, 2):
            run = folder / f"run{processes}"
            settings = (
                "fairseq.checkpoint.keep_interval_updates=-1",
                "fairseq.common.log_interval=1",
                "dataset.num_video_per_batch=2",
                "dataset.global_batch=2",
                "fairseq.checkpoint.save_interval_updates=7",
            )
            for at in sorted(rng.choice(np.arange(6, updates), kills, replace=False).tolist()):
                job = _train(folder, updates, run, processes, settings, wait=False)
                _kill_after(job, run / "metrics.jsonl", at)
            _train(folder, updates, run, processes, settings)
            log = read_log(run)
            again = repeat(log, updates, since=0).hashes
            equal = sum(again.get(update) == value for update, value in log.hashes.items())
            row = {
                "processes": processes,
                "starts": len(log.starts),
                "hashes": len(log.hashes),
                "equal": equal,
            }
            later = rng.choice(list(log.hashes)[1:], 2, replace=False).tolist()
            row["from a checkpoint"] = [repeat(log, update).reproduced for update in later]
            rows.append(row)
    return rows


def _kill_after(job: subprocess.Popen, metrics: Path, update: int) -> None:
    """SIGKILL to a job and all its processes once it has logged an update."""
    wanted = f'"update": {update},'
    while job.poll() is None and not (metrics.is_file() and wanted in metrics.read_text()):
        time.sleep(0.02)
    os.killpg(job.pid, signal.SIGKILL)
    job.wait()


def _train(
    folder: Path,
    updates: int,
    run: Path | None = None,
    processes: int = 1,
    settings: tuple[str, ...] = (),
    wait: bool = True,
) -> subprocess.Popen:
    values = {
        "fairseq.checkpoint.save_dir": run or folder / "run",
        "fairseq.checkpoint.restore_file": "null",
        "fairseq.optimization.max_update": updates,
        "fairseq.optimization.total_num_update": updates,
        "fairseq.dataset.disable_validation": "true",
    }
    folders = move_folders(PROJECT, {"data/toy": f"{folder}/world"})
    settings = (*folders, *(f"{key}={value}" for key, value in values.items()), *settings)
    words = [word for setting in settings for word in ("--set", setting)]
    command = [sys.executable, "locallaunch.py", "projects/toy/norton.yaml", "--jobtype", "local_small"]
    job = subprocess.Popen(
        [*command, "--cpu", "--nproc", str(processes), *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    if wait and job.wait():
        raise RuntimeError(f"{' '.join(job.args)} failed")
    return job


def _spoil(batch: dict, video: int, kind: str, rng: np.random.Generator) -> None:
    """Features of noise with the spread of the real ones, or the captions of half a video later."""
    if kind == "noise":
        features = batch["vfeats"][0, video]
        noise = torch.from_numpy(rng.normal(float(features.mean()), float(features.std()), features.shape))
        batch["vfeats"][0, video] = noise.to(features.dtype) * batch["vmasks"][0, video, ..., None]
        return
    for name in ("caps", "cmasks"):
        clips = batch[name][0, video]
        batch[name][0, video] = clips.roll(len(clips) // 2, 0)


def main() -> None:
    """Print the tables."""
    parts = {"stall": stall, "hash": hash_cost, "step": step_cost, "planted": planted, "replayed": replayed}
    parser = command_line(__doc__)
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--run", default="runs/toy/norton", help="run folder (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    parts["planted"] = functools.partial(planted, args.run)
    found = {part: parts[part]() for part in args.only}
    tables = {TITLES[part]: of_rows(rows) for part, rows in found.items()}
    publish(args.record, tables, found, setting="1 thread")


if __name__ == "__main__":
    main()
