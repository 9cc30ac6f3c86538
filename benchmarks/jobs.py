"""What keeping jobs honest costs: the stall of a save, and of the hash of the gradient; what a replay finds.

    python benchmarks/jobs.py                          # all of it; about ten minutes
    python benchmarks/jobs.py --only stall hash        # parts

stall: a state of model and Adam moments is saved while "training" (matrix products on one thread) goes on:
    the copy alone, how long the call returns after it, how long a write would have stopped training, and how
    much slower products are while the thread writes.
hash: the hash of a gradient against the forward and backward pass of the same model, interleaved.
planted: a run on the embedded data; for each trial a video of one of its updates is spoilt (features of
    noise, captions half a video too late), the update is made again, and the rank of the spoilt video noted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent


def seconds(function: Callable[[], object]) -> float:
    """Wall time of a call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def stall(megabytes: tuple[int, ...] = (64, 512), repeats: int = 7) -> list[dict]:
    """A save against the copy it cannot do without."""
    from fairseq.dataclass.configs import CheckpointConfig

    import mmpt.fairseq_plugin  # noqa: F401  (repairs fairseq)
    from mmpt.fairseq_plugin import checkpoint_files, saving

    x, rows = torch.randn(384, 384), []

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
            task=None,
            consolidate_optimizer=lambda: None,
            get_num_updates=lambda: 1,
            state_dict=lambda state=state: {**state, "extra_state": {}},
        )
        epoch = SimpleNamespace(epoch=1, end_of_epoch=lambda: False, state_dict=dict)
        found = {"copy": [], "call": [], "write": [], "quiet step": [], "step beside": []}
        with tempfile.TemporaryDirectory() as folder:
            cfg = CheckpointConfig(save_dir=folder, save_interval_updates=1)
            for _ in range(repeats):
                found["copy"].append(seconds(lambda: saving.copy_of(state)))
                found["write"].append(
                    seconds(lambda: checkpoint_files.save(state, f"{folder}/checkpoint_sync.pt"))
                )
                found["quiet step"] += [seconds(step) for _ in range(20)]
                found["call"].append(seconds(lambda: saving.save_checkpoint(cfg, trainer, epoch, None)))
                while any(thread.name == "checkpoint writer" for thread in threading.enumerate()):
                    found["step beside"].append(seconds(step))
                saving.writer.wait()
        rows.append({"MiB": size} | {f"{key}, ms": 1e3 * statistics.median(v) for key, v in found.items()})
        rows[-1]["steps beside"] = len(found["step beside"])
    return rows


def hash_cost(repeats: int = 15) -> list[dict]:
    """The hash against a step."""
    from transformers import BertConfig, BertModel

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
        tokens = torch.randint(config.vocab_size, (batch, 32))

        def step(model: BertModel = model, tokens: torch.Tensor = tokens) -> None:
            model.zero_grad()
            model(tokens).last_hidden_state.square().mean().backward()

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


def planted(trials: int = 20, updates: int = 120, seed: int = 0) -> list[dict]:
    """Spoilt videos, and the place at which a replay puts them."""
    from mmpt.replay import read_log, repeat
    from mmpt.replay.report import ranked
    from mmpt_cli.make_data import main as make_data

    rng, rows = np.random.default_rng(seed), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_data(["--out", str(folder / "world"), "--size", "small"])
        _train(folder, updates)
        log = read_log(folder / "run")
        for trial in range(trials):
            update = int(rng.integers(updates // 2, updates + 1))
            clean = repeat(log, update)
            videos = [item["video"] for batch in clean.batches for item in batch["items"]]
            bad = str(rng.choice(videos))
            kind = ("noise", "late captions")[trial % 2]
            moved = _spoil(folder, bad, kind, rng)
            dirty = repeat(log, update, overrides=moved)
            order = [item["video"] for item in ranked(dirty)]
            row = {"update": update, "kind": kind, "place": order.index(bad) + 1, "of": len(order)}
            row["clean place"] = [item["video"] for item in ranked(clean)].index(bad) + 1
            rows.append(row | {"reproduced": clean.reproduced})
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def _train(folder: Path, updates: int) -> None:
    world = folder / "world"
    values = {
        "dataset.bert_name": world / "model",
        "dataset.train_path": world / "how2/how2_s3d_train.lst",
        "dataset.val_path": world / "how2/how2_s3d_val.lst",
        "dataset.vfeat_dir": world / "how2/feat",
        "dataset.tfeat_dir": f"{world}/how2/feat/narration.",
        "fairseq.checkpoint.save_dir": folder / "run",
        "fairseq.checkpoint.restore_file": "null",
        "fairseq.checkpoint.save_interval_updates": 10,
        "fairseq.checkpoint.keep_interval_updates": -1,
        "fairseq.optimization.max_update": updates,
        "fairseq.optimization.total_num_update": updates,
        "fairseq.dataset.disable_validation": "true",
        "fairseq.common.log_interval": 1,
    }
    words = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    command = [sys.executable, "locallaunch.py", "projects/toy/norton.yaml", "--jobtype", "local_single"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "--cpu", *words], cwd=ROOT, env=environment, check=True, capture_output=True)


def _spoil(folder: Path, video: str, kind: str, rng: np.random.Generator) -> tuple[str, ...]:
    """A copy of the shards with one video spoilt; the settings that name it."""
    from mmpt.utils import ShardedTensor
    from mmpt.utils.safe_pickle import load_plain_pickle

    source, target = folder / "world/how2/feat", folder / "spoilt"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    index = load_plain_pickle(source / "train_meta.pkl")
    shard = next(shard for shard, names in index.items() if video in names)
    row = index[shard].index(video)
    name = f"train_{shard}" if kind == "noise" else f"narration.train_{shard}.startends"
    tensor = ShardedTensor.load(str(source / name))
    rows = [np.array(tensor[i]) for i in range(len(tensor))]
    if kind == "noise":
        rows[row] = rng.normal(0, rows[row].std(), rows[row].shape).astype(rows[row].dtype)
    else:
        seconds_of_video = float(rows[row].max())
        rows[row] = (rows[row] + seconds_of_video / 2) % seconds_of_video
    ShardedTensor.from_list(rows).save(str(target / name))
    return f"dataset.vfeat_dir={target}", f"dataset.tfeat_dir={target}/narration."


def main() -> None:
    """Print the tables."""
    parts = {"stall": stall, "hash": hash_cost, "planted": planted}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    torch.set_num_threads(1)
    print(json.dumps({"processor": platform.processor(), "load": os.getloadavg()[0]}))
    for part in parser.parse_args().only:
        for row in parts[part]():
            print(
                json.dumps(
                    {"part": part} | {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
                )
            )


if __name__ == "__main__":
    main()
