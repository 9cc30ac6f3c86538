"""Annotation files as their publishers give them -> what project files name.

Everything but YouCook2 and MSR-VTT is read as published; converting those formats again drops entries that no
reader can use, and counts
them: segments that are reversed, negative or behind the end of the video, steps that their task does not
    have, empty sentences.
"""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmpt.processors.downstream import read_json
from mmpt.processors.sets.crosstask import read_tasks, read_videos
from mmpt.processors.sets.msrvtt import read_table
from mmpt.processors.sets.youcook import records_from_json, records_from_milnce_csv, split_id
from mmpt.utils.files import atomic_write
from mmpt.utils.safe_pickle import save_plain_pickle


def convert_youcook(
    annotation: Path,
    out: Path,
    subset: str = "validation",
    table: Path | None = None,
    videos: Path | None = None,
) -> str:
    """Official JSON (or MIL-NCE's csv, or only some videos) -> pickled records."""
    records = records_from_milnce_csv(table, annotation) if table else records_from_json(annotation, subset)
    if not records:
        raise ValueError(f"{annotation}: no clip in subset {subset!r}; it has training and validation.")
    if videos is not None:
        wanted = set(videos.read_text(encoding="utf-8").split())
        absent = wanted - {split_id(record["id"])[0] for record in records}
        if absent:
            raise ValueError(
                f"{videos}: {len(absent)} videos are not in this gallery, e.g. {sorted(absent)[:3]}."
            )
        records = [record for record in records if split_id(record["id"])[0] in wanted]
    save_plain_pickle(records, out)
    return f"{out}: {len(records)} clips of {len({split_id(record['id'])[0] for record in records})} videos"


def convert_msrvtt(annotation: Path, out: Path, test: Path) -> str:
    """MSRVTT_data.json and the 1k-A list -> MSRVTT_train.9k.csv, MSRVTT_train.7k.csv, MSRVTT_train.csv and
    MSRVTT_FULL_test.csv."""
    data = read_json(annotation, dict)
    if not data.get("videos") or not data.get("sentences"):
        raise ValueError(f"{annotation}: expected `videos` and `sentences`; this is not MSRVTT_data.json.")
    held_out = {row["video_id"] for row in read_table(test, ("video_id",))}
    split_of = {video["video_id"]: video.get("split", "") for video in data["videos"]}
    official = [
        video for video, split in split_of.items() if split in ("train", "validate") and video not in held_out
    ]
    lists = {
        "MSRVTT_train.9k.csv": [video for video in split_of if video not in held_out],
        "MSRVTT_train.7k.csv": official,
        "MSRVTT_train.csv": official,
        "MSRVTT_FULL_test.csv": [video for video, split in split_of.items() if split == "test"],
    }
    for name, videos in lists.items():
        with atomic_write(out / name, "w") as file:
            file.write("video_id\n" + "".join(f"{video}\n" for video in videos))
    return f"{out}: " + ", ".join(f"{name} {len(videos)}" for name, videos in lists.items())


def convert_coin(annotation: Path, out: Path) -> str:
    """COIN.json without impossible segments; times behind the end of the video are cut there."""
    database = read_json(annotation, dict).get("database")
    if not database or not all("annotation" in entry for entry in database.values()):
        raise ValueError(f"{annotation}: expected database -> video -> annotation; this is not COIN.json.")
    dropped: Counter[str] = Counter()
    cleaned = {
        video: {
            **entry,
            "annotation": [
                step
                for step in entry["annotation"]
                if _possible(step["segment"], entry.get("duration"), dropped)
            ],
        }
        for video, entry in database.items()
    }
    _write_json(out, {"database": cleaned})
    subsets = Counter(entry["subset"] for entry in cleaned.values())
    return f"{out}: {len(cleaned)} videos ({_listed(subsets)}); segments dropped: {_listed(dropped)}"


def convert_htm_align(annotation: Path, out: Path) -> str:
    """htm_align.json without impossible or empty sentences, each video's sentences by start."""
    videos = read_json(annotation, dict)
    dropped: Counter[str] = Counter()
    cleaned = {}
    for video, sentences in videos.items():
        kept = [s for s in sentences if _possible(s[1:3], None, dropped) and _spoken(s[3], dropped)]
        if kept:
            cleaned[video] = sorted(kept, key=lambda sentence: sentence[1])
        else:
            dropped["videos without a sentence left"] += 1
    _write_json(out, cleaned)
    alignable = sum(sentence[0] for sentences in cleaned.values() for sentence in sentences)
    total = sum(map(len, cleaned.values()))
    return (
        f"{out}: {len(cleaned)} videos, {total} sentences, {alignable} alignable; dropped: {_listed(dropped)}"
    )


def convert_crosstask(release: Path, out: Path) -> str:
    """A CrossTask release folder -> the same files with annotations that fit the tasks; lines and files that
    do not are counted."""
    primary = read_tasks(release / "tasks_primary.txt")
    tasks = {**primary, **read_tasks(release / "tasks_related.txt")}
    videos = read_videos(release / "videos.csv")
    listed = {f"{task}_{video}" for task, names in videos.items() for video in names}
    dropped: Counter[str] = Counter()
    n_files = 0
    if out.exists():
        raise FileExistsError(f"{out} exists; choose a new folder, or remove that one.")
    partial = out.with_name(f".{out.name}.partial")  # takes the name `out` once it is whole
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "annotations").mkdir(parents=True)
    for path in sorted((release / "annotations").glob("*.csv")):
        if path.stem not in listed:
            dropped["files of videos that videos.csv does not list"] += 1
            continue
        n_steps = len(tasks[path.stem.partition("_")[0]].steps)
        with open(path, encoding="utf-8", newline="") as file:
            rows = [row for row in csv.reader(file) if _fits(row, n_steps, dropped)]
        with open(partial / "annotations" / path.name, "w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
        n_files += 1
    for name in ("tasks_primary.txt", "tasks_related.txt", "videos.csv", "videos_val.csv"):
        shutil.copyfile(release / name, partial / name)
    os.replace(partial, out)
    n_videos = sum(map(len, videos.values()))
    return (
        f"{out}: {len(primary)} primary of {len(tasks)} tasks, {n_videos} videos, {n_files} annotated; "
        f"dropped: {_listed(dropped)}"
    )


def _fits(row: Sequence[str], n_steps: int, dropped: Counter[str]) -> bool:
    step, start, end = row
    if not 1 <= int(step) <= n_steps:
        dropped["steps that the task does not have"] += 1
        return False
    return _possible((float(start), float(end)), None, dropped)


def _possible(segment: Sequence[float], duration: float | None, dropped: Counter[str]) -> bool:
    start, end = segment
    if not (math.isfinite(start) and math.isfinite(end)):
        dropped["not a number"] += 1
    elif start > end:
        dropped["reversed"] += 1
    elif start < 0:
        dropped["negative"] += 1
    elif duration and start >= duration:
        dropped["behind the end of the video"] += 1
    else:
        return True
    return False


def _spoken(text: str, dropped: Counter[str]) -> bool:
    if text.strip():
        return True
    dropped["empty"] += 1
    return False


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items()) or "none"


def _write_json(path: Path, value: object) -> None:
    with atomic_write(path, "w") as file:
        json.dump(value, file)
