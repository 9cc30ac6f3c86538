"""A run of feature extraction: which files, whose share, the passport of the folder, failures, shards.

    passport.json          what the features are; a folder holds one kind
    <id>.npy               (seconds, D), or with shards: train_<k>_data.npy, train_<k>_starts.npy, shards.json, train_meta.pkl
    failures.json          id -> reason; failures_<rank>.json of several processes
"""

from __future__ import annotations

import argparse
import csv
import fcntl
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from mmpt.models.backbones import Backbone
from mmpt.models.extraction import Job, Result, extract
from mmpt.models.packing import PASSPORT, pack, read_meta, read_passport
from mmpt.utils import atomic_write

VIDEO_SUFFIXES = {".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv", ".3gp"}
AUDIO_SUFFIXES = VIDEO_SUFFIXES | {".wav", ".mp3", ".flac", ".m4a", ".ogg", ".opus", ".aac"}


def list_jobs(source: str | Path, suffixes: Iterable[str] = VIDEO_SUFFIXES) -> list[Job]:
    """Files of a folder (and its sub-folders, one level), or of a csv, sorted by id.

    A csv has a column `path` (or `video_path`), relative to the csv or absolute, and may have `video_id`; otherwise the id is the file
    name without its suffix:

        video_id,path
        aaaaaaaaaaa,videos/aaaaaaaaaaa.mp4

    Raises:
        ValueError: nothing found, or two files with one id.
    """
    source = Path(source)
    jobs = _from_csv(source) if source.suffix == ".csv" else _from_folder(source, set(suffixes))
    known: dict[str, Job] = {}
    for job in jobs:
        if job.video_id in known:
            raise ValueError(f"{source}: id {job.video_id!r} belongs to {known[job.video_id].path} and to {job.path}; ids must be unique.")
        known[job.video_id] = job
    if not known:
        kinds = ", ".join(sorted(suffixes))
        raise ValueError(f"{source}: no files found; expected a folder of {kinds} files, or a csv with a path column.")
    return sorted(known.values(), key=lambda job: job.video_id)


def share(jobs: Sequence[Job], rank: int, world_size: int) -> Sequence[Job]:
    """Every `world_size`-th job, beginning with number `rank`."""
    if not 0 <= rank < world_size:
        raise ValueError(f"rank={rank} must lie in 0 .. world_size - 1 = {world_size - 1}.")
    return jobs[rank::world_size]


def check_passport(out: str | Path, passport: Mapping[str, Any]) -> None:
    """Writes what the features of a folder are, or refuses to mix them with others.

    Raises:
        ValueError: the folder holds features made in another way.
    """
    path = Path(out) / PASSPORT
    if known := read_passport(out):
        other = {key: (known.get(key), passport.get(key)) for key in known | dict(passport) if known.get(key) != passport.get(key)}
        if other:
            text = ", ".join(f"{key} {old!r} there, {new!r} now" for key, (old, new) in other.items())
            raise ValueError(f"{path}: this folder holds other features ({text}). Choose another output folder.")
        return
    _write_json(path, passport)


def add_options(parser: argparse.ArgumentParser, batch_size: int) -> None:
    """The options that extraction of video and of audio share."""
    add, environment = parser.add_argument, os.environ
    array_first = int(environment.get("SLURM_ARRAY_TASK_MIN", 0))
    rank = int(environment.get("RANK", int(environment.get("SLURM_ARRAY_TASK_ID", array_first)) - array_first))
    world_size = int(environment.get("WORLD_SIZE", environment.get("SLURM_ARRAY_TASK_COUNT", 1)))
    add("--batch-size", type=int, default=batch_size, help="seconds per pass through the network, gathered across files")
    add("--threads", type=int, default=2, help="files read at the same time")
    add("--dtype", default="float16", choices=("float16", "float32"), help="of the stored features")
    add("--half", action="store_true", help="compute in half precision: float16 on a GPU, bfloat16 on a CPU")
    add("--normalise", action=argparse.BooleanOptionalAction, default=True, help="scale features to unit length")
    gpu = f"cuda:{environment.get('LOCAL_RANK', 0)}"
    add("--device", default=gpu if torch.cuda.is_available() else "cpu", help="where the network runs (default: %(default)s)")
    add("--shards", type=int, metavar="VIDEOS", help="pack into shards of so many videos instead of one file each")
    add("--split", default="train", choices=("train", "val"), help="name of the shards")
    add("--rank", type=int, default=rank, help="number of this process, from 0; default: torchrun's, or the place in a SLURM array")
    add("--world-size", type=int, default=world_size, help="number of processes; default: torchrun's, or the size of the SLURM array")


def run_extraction(source: Path, out: Path, backbone: Backbone, args: argparse.Namespace, suffixes: Iterable[str]) -> Result:
    """Extracts this process's share of the files, with a progress bar; the last process to end packs shards where asked to.

    Args:
        source: folder or csv, see `list_jobs`.
        out: folder.
        backbone: the network.
        args: what `add_options` declared.
        suffixes: which files of a folder to take.
    """
    jobs = list_jobs(source, suffixes)
    check_passport(out, backbone.passport | {"stored_as": args.dtype})
    packed = {video for shard in read_meta(out, args.split).values() for video in shard} if args.shards else set()
    mine = [job for job in share(jobs, args.rank, args.world_size) if job.video_id not in packed]
    seconds = 0
    with tqdm(total=len(mine), unit="file") as bar:

        def on_file(job: Job, clips: int) -> None:
            nonlocal seconds
            seconds += clips
            bar.set_postfix_str(f"{seconds / max(bar.format_dict['elapsed'], 1e-9):.1f} s of footage per s", refresh=False)
            bar.update()

        options = args.batch_size, args.threads, args.dtype, backbone.passport.get("reversed", False), on_file
        result = extract(mine, backbone.read, backbone.network, out, *options)
    result.skipped += sorted(packed & {job.video_id for job in share(jobs, args.rank, args.world_size)})
    name = "failures.json" if args.world_size == 1 else f"failures_{args.rank}.json"
    _write_json(out / name, result.failed)
    if args.shards:
        _pack_when_complete(jobs, out, args)
    return result


def _pack_when_complete(jobs: Sequence[Job], out: Path, args: argparse.Namespace) -> None:
    """Packs all features once every process has done its share; only one process packs at a time."""
    with open(out / ".packing.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        packed = {video for shard in read_meta(out, args.split).values() for video in shard}
        failed = {video for path in out.glob("failures*.json") for video in json.loads(path.read_text())}
        there = {job.video_id for job in jobs if (out / f"{job.video_id}.npy").exists()}
        ids = [job.video_id for job in jobs if job.video_id not in packed and (job.video_id in there or job.video_id not in failed)]
        if there.issuperset(ids):
            unreadable = pack(out, ids, out, args.split, args.shards, args.dtype, read_passport(out))
            _write_json(out / "unreadable.json", unreadable)


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    with atomic_write(path, "w") as file:
        json.dump(dict(values), file, indent=2, sort_keys=True)


def _from_csv(path: Path) -> list[Job]:
    with open(path, newline="") as file:
        reader = csv.DictReader(file)
        column = next((name for name in ("path", "video_path") if name in (reader.fieldnames or [])), None)
        if column is None:
            raise ValueError(f"{path}: expected a column path (or video_path), got {', '.join(reader.fieldnames or ['an empty file'])}.")
        files = [(row, path.parent / row[column]) for row in reader]
    return [Job(row.get("video_id") or file.stem, file) for row, file in files]


def _from_folder(folder: Path, suffixes: set[str]) -> list[Job]:
    files = [path for pattern in ("*", "*/*") for path in folder.glob(pattern)]
    return [Job(path.stem, path) for path in files if path.suffix.lower() in suffixes and path.is_file()]
