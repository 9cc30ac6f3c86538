"""A run of feature extraction: which files, whose share, the passport of the folder, failures, shards.

passport.json          what the features are, of one kind, and how many seconds of footage were damaged
<id>.npy  (seconds, D), or with shards: train_<k>_data.npy, train_<k>_starts.npy, shards.json, train_meta.pkl
failures.json          id -> reason; failures_<rank>.json of several processes
damage.json            id -> seconds concealed and missing; damage_<rank>.json of several processes
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmpt.backbones.backbone import Backbone
from mmpt.extraction.extract import Job, Result, extract
from mmpt.media.video import VIDEO_SUFFIXES
from mmpt.processors.store.packing import pack, read_meta
from mmpt.processors.store.passport import DAMAGED, PASSPORT, read_passport
from mmpt.utils import atomic_write
from mmpt.utils.text import check_id, read_json, read_table, shown

AUDIO_SUFFIXES = VIDEO_SUFFIXES | {".wav", ".mp3", ".flac", ".m4a", ".ogg", ".opus", ".aac"}


@dataclass(frozen=True)
class RunOptions:
    """How a run goes.

    Attributes:
        batch_size: seconds per pass through the network, gathered across files.
        n_threads: files read at the same time.
        dtype: of the stored features.
        shards: pack into shards of so many videos; None: one file for each.
        split: name of the shards.
        rank, world_size: number of this process, and how many there are.
        on_damage: "conceal": frames and samples that cannot be decoded are the last ones before them, or
            silence, as long as no more than a tenth of a file is damaged or cut off; "skip": such files fail;
            "error": they end the run.
    """

    batch_size: int = 16
    n_threads: int = 2
    dtype: str = "float16"
    shards: int | None = None
    split: str = "train"
    rank: int = 0
    world_size: int = 1
    on_damage: str = "conceal"

    def own_file(self, out: Path, name: str) -> Path:
        """What only this process writes: `<name>.json`, or `<name>_<rank>.json` of several processes."""
        return out / (f"{name}.json" if self.world_size == 1 else f"{name}_{self.rank}.json")


def list_jobs(source: str | Path, suffixes: Iterable[str] = VIDEO_SUFFIXES) -> list[Job]:
    """Files of a folder (and its sub-folders, one level), or of a csv, sorted by id.

    A csv has a column `path` (or `video_path`), relative to the csv or absolute, and may have `video_id`;
    otherwise the id is the file name without its suffix:

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
            files = f"{known[job.video_id].path} and to {job.path}"
            raise ValueError(
                f"{source}: id {job.video_id!r} belongs to {files}; rename one, or list them in a csv "
                "with a column video_id."
            )
        known[job.video_id] = job
    if not known:
        kinds = ", ".join(sorted(suffixes))
        raise ValueError(
            f"{source}: no files found; expected a folder of {kinds} files, or a csv with a path column."
        )
    return sorted(known.values(), key=lambda job: job.video_id)


def videos_of(folder: str | Path) -> dict[str, Path]:
    """Id -> file of everything in a folder that a model can read: features `<id>.npy` where there are any,
    otherwise videos."""
    features = {path.stem: path for path in sorted(Path(folder).glob("*.npy"))}
    return features or {job.video_id: job.path.resolve() for job in list_jobs(folder)}


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
        other = {
            key: (known.get(key), passport.get(key))
            for key in known | dict(passport)
            if known.get(key) != passport.get(key)
        }
        if other:
            text = ", ".join(f"{key} {old!r} there, {new!r} now" for key, (old, new) in other.items())
            raise ValueError(
                f"{path}: this folder holds other features ({text}). Choose another output folder."
            )
        return
    write_json(path, passport)


def run_extraction(
    source: Path, out: Path, backbone: Backbone, run: RunOptions, suffixes: Iterable[str]
) -> Result:
    """Extracts this process's share of the files, with a progress bar; the last process to end packs shards
    where asked to.

    Args:
        source: folder or csv, see `list_jobs`.
        out: folder.
        backbone: the network.
        run: how.
        suffixes: which files of a folder to take.
    """
    jobs = list_jobs(source, suffixes)
    check_passport(out, backbone.passport | {"stored_as": run.dtype})
    packed = (
        {video for shard in read_meta(out, run.split).values() for video in shard} if run.shards else set()
    )
    mine = [job for job in share(jobs, run.rank, run.world_size) if job.video_id not in packed]
    seconds = 0
    with tqdm(total=len(mine), unit="file") as bar:

        def on_file(job: Job, clips: int) -> None:
            nonlocal seconds
            seconds += clips
            bar.set_postfix_str(
                f"{seconds / max(bar.format_dict['elapsed'], 1e-9):.1f} s of footage per s", refresh=False
            )
            bar.update()

        read = partial(backbone.read, max_damage=0.0) if run.on_damage == "skip" else backbone.read
        result = extract(
            mine,
            read,
            backbone.network,
            out,
            run.batch_size,
            run.n_threads,
            run.dtype,
            backbone.passport.get("reversed", False),
            on_file,
            stop_on_damage=run.on_damage == "error",
        )
    result.skipped += sorted(packed & {job.video_id for job in share(jobs, run.rank, run.world_size)})
    write_json(run.own_file(out, "failures"), result.failed)
    damage = run.own_file(out, "damage")
    known = read_json(damage, dict, empty=True) if damage.is_file() else {}
    if known or result.damaged:  # of earlier starts too: what was done then is not read again
        write_json(damage, known | {video: asdict(found) for video, found in result.damaged.items()})
        _note_damage(out)
    if run.shards:
        _pack_when_complete(jobs, out, run, run.shards)
    return result


def _note_damage(out: Path) -> None:
    """Enters in the passport how many seconds of all files are not as they were recorded."""
    with open(out / ".packing.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        records = [record for path in out.glob("damage*.json") for record in read_json(path, dict).values()]
        lost = sum(record["concealed_s"] + record["missing_s"] for record in records)
        write_json(out / PASSPORT, read_passport(out) | {DAMAGED: round(lost, 3)})


def _pack_when_complete(jobs: Sequence[Job], out: Path, run: RunOptions, per_shard: int) -> None:
    """Packs all features once every process has done its share; only one process packs at a time."""
    with open(out / ".packing.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        packed = {video for shard in read_meta(out, run.split).values() for video in shard}
        failed = {video for path in out.glob("failures*.json") for video in read_json(path, dict, empty=True)}
        there = {job.video_id for job in jobs if (out / f"{job.video_id}.npy").exists()}
        ids = [
            job.video_id
            for job in jobs
            if job.video_id not in packed and (job.video_id in there or job.video_id not in failed)
        ]
        if there.issuperset(ids):
            unreadable = pack(out, ids, out, run.split, per_shard, run.dtype, read_passport(out))
            write_json(out / "unreadable.json", unreadable)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """A JSON object in a file that is whole or absent."""
    with atomic_write(path, "w") as file:
        json.dump(dict(values), file, indent=2, sort_keys=True)


def _from_csv(path: Path) -> list[Job]:
    rows = read_table(path, ())
    column = next((name for name in ("path", "video_path") if name in rows[0]), None)
    if column is None:
        raise ValueError(f"{path}: expected a column path (or video_path), got {shown(', '.join(rows[0]))}.")
    jobs = []
    for number, row in enumerate(rows, 1):
        file = path.parent / row[column]
        name = row.get("video_id") or file.stem
        jobs.append(Job(check_id(name, f"{path}, row {number}"), file))
    return jobs


def _from_folder(folder: Path, suffixes: set[str]) -> list[Job]:
    files = [path for pattern in ("*", "*/*") for path in folder.glob(pattern)]
    return [Job(path.stem, path) for path in files if path.suffix.lower() in suffixes and not path.is_dir()]
