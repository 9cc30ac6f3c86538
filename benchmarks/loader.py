"""The data path: clips per second of the samplers, features read from shards, and the video index.

    python benchmarks/loader.py                       # everything; about two minutes
    python benchmarks/loader.py --only sampler index  # parts
    python benchmarks/loader.py --record loader

Shape: 64 videos x 16 clips per batch, 16 video and 32 text positions, videos of about 6 minutes with a
caption about every 4 seconds,
float16 features of width 512. All data are made up and warm in the page cache; one process, one thread.
`plain` is the same sampling written clip by clip in ordinary Python over lists, one tensor per clip, as a
straightforward implementation would have it.
"""

from __future__ import annotations

import math
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measured import command_line, each_time_another, interleaved, publish
from mmpt.config.schema import DatasetConfig
from mmpt.datasets import MMDataset
from mmpt.datasets.hand_over import PACKED, pack, send_as_stored
from mmpt.processors import (
    ShardedHow2VideoRetriMetaProcessor,
    ShardedVideoRetriTextProcessor,
    ShardedVideoRetriVideoProcessor,
    VideoRetriOverlappedAligner,
)
from mmpt.processors.store.video_index import VideoIndex
from mmpt.processors.tokens import SpecialIds
from mmpt.utils import ShardedTensor, ShardWriter, save_plain_pickle

VIDEOS, CLIPS, WIDTH, N_VIDEOS = 64, 16, 512, 256
N_INDEXED = 1_200_000  # videos of HowTo100M
SPECIAL = SpecialIds(cls=101, sep=102, pad=0, mask=103, vocab_size=30522)


def build_data(folder: Path) -> DatasetConfig:
    """256 videos in four shards."""
    rng = np.random.default_rng(0)
    ids = [f"video{i:06d}" for i in range(N_VIDEOS)]
    (folder / "train.lst").write_text("\n".join(ids))
    meta = {shard: ids[shard * 64 : (shard + 1) * 64] for shard in range(N_VIDEOS // 64)}
    save_plain_pickle(meta, folder / "train_meta.pkl")
    for shard, names in meta.items():
        paths = [
            folder / f"train_{shard}",
            folder / f"text.train_{shard}.startends",
            folder / f"text.train_{shard}.caps_ids",
        ]
        with ShardWriter(paths[0]) as video, ShardWriter(paths[1]) as times, ShardWriter(paths[2]) as caps:
            for _ in names:
                seconds = int(rng.integers(240, 480))
                video.append(rng.standard_normal((seconds, WIDTH)).astype(np.float16))
                start = np.sort(rng.uniform(0, seconds - 4, seconds // 4)).astype(np.float32)
                times.append(np.stack([start, start + rng.uniform(2, 6, len(start))], 1).astype(np.float32))
                ids_ = np.full((len(start), 32), -1, np.int32)
                for row in ids_:
                    row[: rng.integers(4, 18)] = 1000
                caps.append(np.where(ids_ > 0, rng.integers(1000, 30000, ids_.shape), -1).astype(np.int32))
    return settings(folder)


def settings(folder: Path, **changes: Any) -> DatasetConfig:
    """Norton's pre-training settings, of a list and shards in a folder."""
    return DatasetConfig(
        split="train",
        train_path=str(folder / "train.lst"),
        vfeat_dir=str(folder),
        tfeat_dir=f"{folder}/text.",
        num_video_per_batch=VIDEOS,
        clip_per_video=CLIPS,
        max_video_len=16,
        max_len=48,
        sampled_min_len=8,
        sampled_max_len=32,
        sampled_video_min_len=3,
        sampled_video_max_len=16,
        **changes,
    )


def dataset(config: DatasetConfig, meta: ShardedHow2VideoRetriMetaProcessor | None = None) -> MMDataset:
    """The retrieval-batch data set, with the list as it is or has been read."""
    parts = (
        meta or ShardedHow2VideoRetriMetaProcessor(config),
        ShardedVideoRetriVideoProcessor(config),
        ShardedVideoRetriTextProcessor(config),
    )
    return MMDataset(*parts, VideoRetriOverlappedAligner(config, SPECIAL))


def video_names(n: int, rng: np.random.Generator) -> list[str]:
    """Ids of eleven letters, as YouTube has them."""
    alphabet = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", "S1")
    return rng.choice(alphabet, (n, 11)).view("S11").ravel().astype(str).tolist()


def plain_clip(
    video: np.ndarray, start: list[float], end: list[float], cap: list[list[int]], config: DatasetConfig
) -> tuple[tuple, list[torch.Tensor]]:
    """One clip, draw by draw."""
    n, length = len(start), len(video)
    low = high = random.randint(0, n - 1)
    budget, words = random.randint(config.sampled_min_len, config.sampled_max_len), len(cap[low])
    while (low > 0 or high < n - 1) and words < budget and end[high] - start[low] < 256:
        if (random.random() > 0.5 and high < n - 1) or low == 0:
            high += 1
            words += len(cap[high])
        else:
            low -= 1
            words += len(cap[low])
    first, last = math.floor(start[low]), math.ceil(end[high])
    centre = min(max(random.randint(first, last), 0), length - 1)
    seconds = min(random.randint(config.sampled_video_min_len, config.sampled_video_max_len), length)
    begin = stop = centre
    while stop - begin < seconds:
        if begin == 0 or (stop < length and random.random() > 0.5):
            stop += 1
        else:
            begin -= 1
    text_len = config.max_len - config.max_video_len
    ids = [
        SPECIAL.cls,
        SPECIAL.sep,
        *[token for clip in cap[low : high + 1] for token in clip][: text_len - 3],
        SPECIAL.sep,
    ]
    caps = torch.tensor(ids + [SPECIAL.pad] * (text_len - len(ids)))
    vfeats, vmasks = (
        torch.zeros(config.max_video_len, video.shape[1]),
        torch.zeros(config.max_video_len, dtype=torch.bool),
    )
    vfeats[: stop - begin] = torch.from_numpy(video[begin:stop].astype(np.float32))
    vmasks[: stop - begin] = True
    return (low, begin, high, stop), [caps, torch.arange(text_len) < len(ids), vfeats, vmasks]


def plain_batch(places: list[tuple], config: DatasetConfig) -> list[torch.Tensor]:
    """One batch, video by video, shards opened for every video."""
    videos = []
    for _, _, shard, row in places:
        video = ShardedTensor.load(f"{config.vfeat_dir}/train_{shard}", "r")[row]
        times = ShardedTensor.load(f"{config.tfeat_dir}train_{shard}.startends", "r")[row]
        ids = ShardedTensor.load(f"{config.tfeat_dir}train_{shard}.caps_ids", "r")[row]
        cap = [[token for token in clip if token != -1] for clip in ids.tolist()]
        start, end = times[:, 0].tolist(), times[:, 1].tolist()
        clips = sorted(
            (plain_clip(video, start, end, cap, config) for _ in range(CLIPS)), key=lambda clip: clip[0]
        )
        videos.append([torch.stack(parts) for parts in zip(*(tensors for _, tensors in clips), strict=True)])
    return [torch.stack(parts) for parts in zip(*videos, strict=True)]


def bench_sampler(rounds: int) -> dict[str, float]:
    """Clips per second of the two samplers and of the plain implementation."""
    with tempfile.TemporaryDirectory() as folder:
        config = build_data(Path(folder))
        default, replay = dataset(config), dataset(replace(config, sampler="python"))
        calls = {
            "default sampler": default.__getitem__,
            "replaying sampler": replay.__getitem__,
            "plain, clip by clip": lambda index: plain_batch(default.meta_processor[index][0], config),
        }
        steps = {name: each_time_another(call, range(len(default))) for name, call in calls.items()}
        ms = {name: cpu for name, (cpu, _) in interleaved(steps, rounds).items()}
    rates = {f"{name}, clips/s": 1e3 * VIDEOS * CLIPS / value for name, value in ms.items()}
    return {**rates, "default / plain": ms["plain, clip by clip"] / ms["default sampler"]}


def bench_store(rounds: int) -> dict[str, float]:
    """Milliseconds to read 64 x 16 windows of 16 seconds from 64 videos: shards kept open against reopened
    for every video."""
    with tempfile.TemporaryDirectory() as folder:
        config = build_data(Path(folder))
        places = [place for group in dataset(config).meta_processor.groups for place in group.tolist()]
        meta = dataset(config).meta_processor
        reader = ShardedVideoRetriVideoProcessor(config)
        out = np.empty((VIDEOS, CLIPS, 16, WIDTH), np.float16)

        def read(open_video: Callable[[tuple], np.ndarray], seed: int) -> None:
            rng = np.random.default_rng(seed)
            for i, position in enumerate(rng.choice(places, VIDEOS, replace=False).tolist()):
                video = open_video(meta.place(position))
                for j, start in enumerate(rng.integers(0, len(video) - 16, CLIPS).tolist()):
                    out[i, j] = video[start : start + 16]

        ways: dict[str, Callable[[tuple], np.ndarray]] = {
            "kept open": lambda place: reader([place])[0],
            "reopened per video": lambda place: ShardedTensor.load(f"{folder}/train_{place[2]}", "r")[
                place[3]
            ],
        }
        steps = {name: each_time_another(partial(read, way), range(rounds + 1)) for name, way in ways.items()}
        ms = {name: cpu for name, (cpu, _) in interleaved(steps, rounds).items()}
    return {
        **{f"{name}, ms/batch": value for name, value in ms.items()},
        "reopened / kept open": ms["reopened per video"] / ms["kept open"],
    }


def bench_hand_over(rounds: int) -> dict[str, float]:
    """A worker and the process that it works for: batches padded in float32, and packed as they are stored,
    each copied once, as pinning for a GPU does."""
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("float32", "as stored"):
            data = dataset(build_data(Path(folder)))
            if name == "as stored":
                send_as_stored(data)
            loader = DataLoader(
                data, 1, sampler=[i % len(data) for i in range(rounds + 4)], num_workers=1,
                collate_fn=lambda items, data=data: pack(data.collate(items)),
            )  # fmt: skip
            batches = iter(loader)
            pid = batches._workers[0].pid
            for _ in range(4):  # what was made ahead
                next(batches)
            worker = made = cpu_of(pid)
            own = time.process_time()
            for batch in batches:
                features = batch.get("vfeats", batch.get(PACKED, {}).get("vfeats")).clone()
                made = cpu_of(pid) or made
            clips = rounds * VIDEOS * CLIPS
            result[f"{name}, clips/s of a worker's core"] = clips / (made - worker)
            result[f"{name}, ms/batch of the main process"] = 1e3 * (time.process_time() - own) / rounds
            result[f"{name}, KiB/clip"] = features.nbytes / 1024 / VIDEOS / CLIPS
    return result


def cpu_of(pid: int) -> float:
    """CPU seconds of a process so far; 0 once it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


INDEX_PROBE = r"""
import re, sys, time
from mmpt.processors.store.video_index import VideoIndex
from mmpt.utils import load_plain_pickle
private = lambda: int(re.search(r"RssAnon:\s+(\d+)", open("/proc/self/status").read())[1]) / 1024
before, begin = private(), time.perf_counter()
if sys.argv[2] == "pickle":
    meta = load_plain_pickle(sys.argv[1])
    places = {name: (shard, row) for shard, names in meta.items() for row, name in enumerate(names)}
else:
    index = VideoIndex.open(sys.argv[1])
print(time.perf_counter() - begin, private() - before)
"""


def bench_index(rounds: int) -> dict[str, float]:
    """Opening the index of 1.2 million videos, in a fresh process, against the dictionary from the pickle;
    and looking ids up."""
    names = video_names(N_INDEXED, np.random.default_rng(0))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train_meta.pkl"
        save_plain_pickle(
            {start // 4096: names[start : start + 4096] for start in range(0, N_INDEXED, 4096)}, path
        )
        begin = time.perf_counter()
        index = VideoIndex.open(path)
        result = {"build once, s": time.perf_counter() - begin}
        for kind in ("pickle", "index"):
            probes = [
                subprocess.run(
                    [sys.executable, "-c", INDEX_PROBE, path, kind],
                    capture_output=True,
                    text=True,
                    check=True,
                )
                for _ in range(min(rounds, 3))
            ]
            values = [tuple(map(float, probe.stdout.split())) for probe in probes]
            result[f"{kind}: open, ms"] = 1e3 * min(value[0] for value in values)
            result[f"{kind}: private memory, MiB"] = min(value[1] for value in values)
        result["index: file, MiB"] = Path(f"{path}.index").stat().st_size / 2**20
        some = names[:: N_INDEXED // 100_000]
        begin = time.perf_counter()
        index.find(some)
        result["index: look-up of 100 000 ids, us each"] = (time.perf_counter() - begin) / len(some) * 1e6
    return result


def main() -> None:
    """Command line."""
    parts = {
        "sampler": bench_sampler,
        "hand-over": bench_hand_over,
        "store": bench_store,
        "index": bench_index,
    }
    parser = command_line(__doc__)
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = {name: parts[name](args.rounds) for name in args.only}
    results["memory"] = {"peak resident, MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    rows = [[name, what, value] for name, values in results.items() for what, value in values.items()]
    title = "The data path: sampling, shards, index"
    publish(args.record, {title: [["part", "what", "found"], *rows]}, results, setting="1 thread")


if __name__ == "__main__":
    main()
