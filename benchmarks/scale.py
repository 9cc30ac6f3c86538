"""The data path at the size of HowTo100M: 1.2 million videos in 293 shards, made up.

    python benchmarks/scale.py                        # about five minutes and 1 GB of disk
    python benchmarks/scale.py --videos 100000 --workers 0 1

Ids, index and offsets are real ones of random content. Features are holes in sparse files: reading them costs
what reading cached files costs, and no disk is measured. All shards of a kind of text are one file under many
names. Videos are of about 6.6 minutes with a caption every 4 seconds; a batch is 64 videos x 16 clips. PSS is
a process's share of memory, pages shared by n processes counted 1/n; `own` is what only this process has.
Training with more GPUs is computed from the measured rate per worker, and says so.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.loader import CLIPS, VIDEOS, WIDTH, dataset, settings, video_names
from benchmarks.measured import command_line, of_rows, publish
from mmpt.processors import ShardedHow2VideoRetriMetaProcessor
from mmpt.processors.store.video_index import VideoIndex
from mmpt.utils import ShardWriter, save_plain_pickle

VIDEOS_PER_SHARD, MEAN_SECONDS = 4096, 396
CLIPS_PER_GPU = (
    6000,
    9000,
)  # per second that an A100 trains on, on paper: BERT-base towers, 14 to 21 TFLOP per 1024 clips
BYTES_PER_VIDEO = MEAN_SECONDS * WIDTH * 2


def make_data(folder: Path, n_videos: int) -> None:
    """Index, list and shards; the features are holes."""
    rng = np.random.default_rng(0)
    names = video_names(n_videos, rng)
    meta = {
        k: names[start : start + VIDEOS_PER_SHARD]
        for k, start in enumerate(range(0, n_videos, VIDEOS_PER_SHARD))
    }
    save_plain_pickle(meta, folder / "train_meta.pkl")
    (folder / "train.lst").write_text("\n".join(names))
    lengths = rng.integers(MEAN_SECONDS // 2, MEAN_SECONDS * 3 // 2, VIDEOS_PER_SHARD)
    _write_text(folder, lengths, rng)
    for shard, ids in meta.items():
        _write_hole(folder / f"train_{shard}", lengths[: len(ids)])
        for kind in ("startends", "caps_ids"):
            for suffix in ("data", "starts"):
                source, target = (
                    folder / f"one.{kind}_{suffix}.npy",
                    folder / f"text.train_{shard}.{kind}_{suffix}.npy",
                )
                os.link(source, target)


def _write_text(folder: Path, lengths: np.ndarray, rng: np.random.Generator) -> None:
    with ShardWriter(folder / "one.startends") as times, ShardWriter(folder / "one.caps_ids") as caps:
        for seconds in lengths.tolist():
            start = np.sort(rng.uniform(0, seconds - 4, seconds // 4)).astype(np.float32)
            times.append(np.stack([start, start + rng.uniform(2, 6, len(start)).astype(np.float32)], 1))
            words = rng.integers(1000, 30000, (len(start), 32), dtype=np.int32)
            caps.append(
                np.where(np.arange(32) < rng.integers(4, 18, (len(start), 1)), words, -1).astype(np.int32)
            )
    (folder / "shards.json").unlink()  # links have other names than it lists


def _write_hole(path: Path, lengths: np.ndarray) -> None:
    starts = np.cumsum([0, *lengths], dtype=np.int64)
    np.save(f"{path}_starts.npy", starts)
    with open(f"{path}_data.npy", "wb") as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": (int(starts[-1]), WIDTH)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + int(starts[-1]) * WIDTH * 2)


def memory(pid: int | str) -> dict[str, float]:
    """MiB of a process: PSS, of that anonymous, and what no other process shares."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kib = {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+) kB", text, re.M)}
    return {
        "PSS, MiB": kib["Pss"] / 1024,
        "PSS anonymous, MiB": kib["Pss_Anon"] / 1024,
        "own, MiB": (kib["Private_Clean"] + kib["Private_Dirty"]) / 1024,
    }


def probe(folder: Path, workers: int, batches: int, read_ahead: bool) -> dict[str, Any]:
    """One training process with its workers."""
    torch.set_num_threads(1)
    config, result = settings(folder, read_ahead=read_ahead), {}
    begin = time.perf_counter()
    index = VideoIndex.open(folder / "train_meta.pkl")
    result["open the index, ms"] = 1e3 * (time.perf_counter() - begin)
    result["videos"] = len(index)
    before = memory("self")
    begin = time.perf_counter()
    meta = ShardedHow2VideoRetriMetaProcessor(config)
    result["list, places, check of all shards, s"] = time.perf_counter() - begin
    result["memory of it, own, MiB"] = memory("self")["own, MiB"] - before["own, MiB"]
    begin = time.perf_counter()
    meta.random_candidates(np.random.default_rng((1, 1)))
    result["regroup an epoch, ms"] = 1e3 * (time.perf_counter() - begin)
    data = dataset(config, meta)
    loader = DataLoader(data, batch_size=1, shuffle=True, num_workers=workers, collate_fn=data.collate)
    begin = time.perf_counter()
    iterator = iter(loader)
    next(iterator)
    result["first batch, s"] = time.perf_counter() - begin
    for _ in range(max(2 * workers, 2)):  # what was made ahead
        next(iterator)
    begin, cpu, cached = time.perf_counter(), _cpu_seconds(iterator), _cached_mib()
    for _ in range(batches):
        next(iterator)
    seconds, cpu = time.perf_counter() - begin, _cpu_seconds(iterator) - cpu
    result["clips/s"] = batches * VIDEOS * CLIPS / seconds
    result["clips/s per core busy"] = batches * VIDEOS * CLIPS / cpu
    result["page cache filled per batch (by anybody), MiB"] = (_cached_mib() - cached) / batches
    result["main process"] = memory("self")
    result["a worker"] = memory(iterator._workers[0].pid) if workers else None
    return result


def _cpu_seconds(iterator: Any) -> float:
    """CPU time so far of this process and the loader's workers."""
    ticks = 0
    for pid in ["self", *(worker.pid for worker in getattr(iterator, "_workers", []))]:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # user, system
    return ticks / os.sysconf("SC_CLK_TCK")


def _cached_mib() -> float:
    return int(re.search(r"^Cached:\s+(\d+)", Path("/proc/meminfo").read_text(), re.M)[1]) / 1024


def on_paper(rate: float, own_mib: float, index_mib: float) -> list[dict[str, Any]]:
    """What training on more GPUs takes, computed from the rate of one worker core and from the rate at which
    a GPU eats clips.

    Features are read whole, once per video and epoch.
    """
    rows = []
    for gpus in (8, 64):
        for clips in CLIPS_PER_GPU:
            workers = -(-clips // int(rate))
            rows.append(
                {
                    "GPUs": gpus,
                    "clips/s per GPU": clips,
                    "worker cores per GPU": workers,
                    "clips/s": gpus * clips,
                    "features read, GB/s": gpus * clips / CLIPS / 1e9 * BYTES_PER_VIDEO,
                    "per node of 8: features, GB/s": 8 * clips / CLIPS / 1e9 * BYTES_PER_VIDEO,
                    "per node of 8: data processes, GiB": (8 * workers * own_mib + index_mib) / 1024,
                    "an epoch of 1.2 M videos, minutes": 1.2e6 * CLIPS / (gpus * clips) / 60,
                }
            )
    return rows


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("--videos", type=int, default=1_200_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2, 4])
    parser.add_argument("--batches", type=int, default=40, help="timed, per number of workers")
    parser.add_argument("--probe", type=Path, help=argparse.SUPPRESS)  # a process that measures itself
    parser.add_argument("--no-read-ahead", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.probe:
        print(json.dumps(probe(args.probe, args.workers[0], args.batches, not args.no_read_ahead)))
        return
    folder = Path(tempfile.mkdtemp(prefix="mmpt_scale_"))
    try:
        results = measure(folder, args)
    finally:
        shutil.rmtree(folder)
    show(results, args.record)


def measure(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Make the data, then one fresh process per number of workers."""
    begin = time.perf_counter()
    make_data(folder, args.videos)
    results: dict[str, Any] = {"make the data, s": time.perf_counter() - begin}
    begin = time.perf_counter()
    VideoIndex.open(folder / "train_meta.pkl")
    results["build the index, once, s"] = time.perf_counter() - begin
    results["index file, MiB"] = (folder / "train_meta.pkl.index").stat().st_size / 2**20
    for workers in args.workers:
        results[f"{workers} workers"] = _probe_fresh(folder, workers, args.batches)
    results["1 worker, read_ahead: false"] = _probe_fresh(folder, 1, args.batches, "--no-read-ahead")
    return results


def _probe_fresh(folder: Path, workers: int, batches: int, *more: str) -> dict[str, Any]:
    """`probe` in a process of its own, no shard in the page cache."""
    for path in folder.glob("*_data.npy"):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    words = [
        sys.executable,
        __file__,
        "--probe",
        str(folder),
        "--workers",
        str(workers),
        "--batches",
        str(batches),
        *more,
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def show(results: dict[str, Any], record: str | None) -> None:
    """Tables."""
    probes = {name: values for name, values in results.items() if isinstance(values, dict)}
    flat = {name: _flat(values) for name, values in probes.items()}
    keys = list(dict.fromkeys(key for values in flat.values() for key in values))
    once = [["what", "found"], *([name, value] for name, value in results.items() if name not in probes)]
    rows = [[key, *(values.get(key, "-") for values in flat.values())] for key in keys]
    tables = {
        f"Once, {next(iter(flat.values()))['videos']:,.0f} videos": once,
        "A training process and its workers": [["", *flat], *rows],
    }
    with_worker = [values for values in probes.values() if values["a worker"]]
    if with_worker:
        worker = with_worker[0]
        own = worker["a worker"]["PSS anonymous, MiB"]
        paper = on_paper(worker["clips/s per core busy"], own, results["index file, MiB"])
        tables["On paper, from the rate of one worker; GPUs were not measured"] = of_rows(paper)
    publish(record, tables, results, setting="1 thread a process")


def _flat(values: dict[str, Any]) -> dict[str, float]:
    result = {key: value for key, value in values.items() if isinstance(value, int | float)}
    for part in ("main process", "a worker"):
        result |= {f"{part}: {key}": value for key, value in (values[part] or {}).items()}
    return result


if __name__ == "__main__":
    main()
