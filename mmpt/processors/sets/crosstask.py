"""CrossTask: finding the steps of a task in a video.

videos.csv                 23521,4K4PnQ66LQ8,https://...                task, video, url
tasks_primary.txt  records of six lines: id, title, url, number of steps, steps separated by commas, blank
annotations/<task>_<video>.csv   5,2.1,5.7                              step (from 1), start, end in seconds
"""

from __future__ import annotations

import csv
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from mmpt.config import required
from mmpt.config.fields import Section, option
from mmpt.config.schema import DatasetConfig
from mmpt.processors.annotations import check_segment, span
from mmpt.processors.base import MetaProcessor, PublishedList, TextProcessor, VideoProcessor
from mmpt.processors.convert import is_possible, listed
from mmpt.processors.downstream import WindowAligner
from mmpt.registry import ALIGNERS, META_PROCESSORS, TEXT_PROCESSORS, VIDEO_PROCESSORS
from mmpt.utils.seed import ItemRandom
from mmpt.utils.text import check_id, is_count, number, quoted, read_rows, read_text

Segment = tuple[int, float, float]  # step (from 0), start and end in seconds
TaskVideo = tuple[str, str, list[str], int]  # task, video, step names, number of steps

TEST = [
    PublishedList(
        1850,
        None,
        "CrossTask release, all features, n_train 30: 2750 annotated - 360 for validation - 18 x 30",
    )
]


@dataclass(frozen=True)
class CrossTask:
    """A task: its title and its steps."""

    title: str
    steps: list[str]


def read_tasks(path: str | Path) -> dict[str, CrossTask]:
    """Task id -> task, from a release file."""
    tasks = {}
    for record in read_text(path).strip().split("\n\n"):
        lines = record.strip().split("\n")
        if len(lines) != 5 or not is_count(lines[3]):
            raise ValueError(
                f"{path}: expected records of id, title, url, number of steps, steps; got "
                f"{quoted(record[:60])}. Another file?"
            )
        task_id, title, _, n_steps, steps = lines
        tasks[task_id] = CrossTask(title, steps.split(","))
        if len(tasks[task_id].steps) != int(n_steps):
            raise ValueError(
                f"{path}: task {task_id} states {n_steps} steps and lists {len(tasks[task_id].steps)}."
            )
    return tasks


def read_videos(path: str | Path) -> dict[str, list[str]]:
    """Task id -> videos, in file order."""
    videos = defaultdict(list)
    for line, row in read_rows(path, (2, 3)):
        if not is_count(row[0]):
            raise ValueError(
                f"{path}, line {line}: expected task number, video, url; got {quoted(row)}. Is this the "
                "file of another data set?"
            )
        videos[row[0]].append(check_id(row[1], f"{path}, line {line}"))
    return dict(videos)


def read_segments(path: str | Path) -> list[Segment]:
    """The annotated steps of a video."""
    segments = []
    for _, step, start_s, end_s in _steps(path):
        if step < 1:
            raise ValueError(f"{path}: step {step}: steps are counted from 1.")
        check_segment(start_s, end_s, f"{path}: step {step}")
        segments.append((step - 1, start_s, end_s))
    return segments


def _steps(path: str | Path) -> Iterator[tuple[list[str], int, float, float]]:
    """Rows of an annotation, each with its step, counted from 1, and its times as they are."""
    for line, row in read_rows(path, 3):
        where = f"{path}, line {line}"
        if not is_count(row[0]):
            raise ValueError(f"{where}: expected the number of a step, got {quoted(row[0])}.")
        start_s, end_s = (number(field, where, finite=False) for field in row[1:])
        yield row, int(row[0]), start_s, end_s


def split_videos(
    videos: dict[str, list[str]], primary: list[str], n_train: int
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Training and test videos per task; only primary tasks with more than `n_train` videos have any to test.

    Of those, `n_train` are drawn for training by numpy's historic generator, seed 0.
    """
    random = np.random.RandomState(0)
    train, test = {}, {}
    for task, names in videos.items():
        if task in primary and len(names) > n_train:
            train[task] = random.choice(names, n_train, replace=False).tolist()
            test[task] = [name for name in names if name not in set(train[task])]
        else:
            train[task], test[task] = list(names), []
    return train, test


@META_PROCESSORS.register()
class CrossTaskMetaProcessor(MetaProcessor):
    """Videos of the split; item -> ((task, video, steps, number of steps), same).

    All come from train_csv_path, less those of val_csv_path; validation and test both take the test part.
    Which videos have features decides the split, as the draw comes after: what is missing is counted and
    named.
    """

    LIST = "CrossTask videos csv: lines `task,video,url`"
    FILES: ClassVar = {
        "train_csv_path": "CrossTask videos.csv: lines `task,video,url`",
        "val_csv_path": "CrossTask videos_val.csv: lines `task,video,url`",
        "primary_path": "CrossTask tasks_primary.txt: records of id, title, url, number of steps, steps, "
        "blank line",
        "related_path": "CrossTask tasks_related.txt, like tasks_primary.txt",
        "annotation_path": "CrossTask: folder of <task>_<video>.csv",
    }
    PUBLISHED: ClassVar = {
        "train": [PublishedList(540, None, "CrossTask release, all features, n_train 30: 18 x 30")],
        "valid": TEST,
        "test": TEST,
    }

    @dataclass(frozen=True, kw_only=True)
    class Config(Section):
        """Files of the data set."""

        train_csv_path: str | None = option(None, "CrossTask training videos")
        val_csv_path: str | None = option(None, "CrossTask validation videos")
        primary_path: str | None = option(None, "CrossTask primary tasks")
        related_path: str | None = option(None, "CrossTask related tasks")
        n_train: int | None = option(None, "CrossTask training videos per primary task", least=1)

    def __init__(self, config: DatasetConfig):
        super().__init__(config)
        primary = read_tasks(required(config, "primary_path"))
        tasks = {**primary, **read_tasks(required(config, "related_path"))}
        videos = self._available(read_videos(required(config, "train_csv_path")))
        held_out = {
            video for names in read_videos(required(config, "val_csv_path")).values() for video in names
        }
        videos = {
            task: [video for video in names if video not in held_out]
            for task, names in videos.items()
            if task in tasks
        }
        train, test = split_videos(videos, list(primary), required(config, "n_train"))
        self.data = [
            ((task, video, tasks[task].steps, len(tasks[task].steps)),) * 2
            for task, names in (train if self.split == "train" else test).items()
            for video in names
        ]

    def _available(self, videos: dict[str, list[str]]) -> dict[str, list[str]]:
        has_features, annotations = (
            self.has_features(),
            {path.name for path in Path(required(self.config, "annotation_path")).iterdir()},
        )
        pairs = self.keep(
            [(task, video) for task, names in videos.items() for video in names],
            lambda pair: has_features(pair[1]) and f"{pair[0]}_{pair[1]}.csv" in annotations,
            lambda pair: pair[1],
            "have no features or no annotation",
        )
        kept = defaultdict(list)
        for task, video in pairs:
            kept[task].append(video)
        return dict(kept)

    def videos(self, index: int) -> list[str]:
        return [self.data[index][0][1]]

    def segments(self) -> Iterator[tuple[str, list[tuple[float, float]]]]:
        for item, _ in self.data:
            yield item[1], [(start, end) for _, start, end in read_segments(annotation_of(item, self.config))]


def annotation_of(item: TaskVideo, config: DatasetConfig) -> Path:
    """The file of a video's segments."""
    return Path(required(config, "annotation_path")) / f"{item[0]}_{item[1]}.csv"


@VIDEO_PROCESSORS.register()
class CrossTaskVideoProcessor(VideoProcessor):
    """Features of the video of a (task, video, ...) item."""

    def __call__(self, video_id: TaskVideo) -> np.ndarray:
        return super().__call__(video_id[1])


@TEXT_PROCESSORS.register()
class CrossTaskTextProcessor(TextProcessor):
    """Token ids of the task's steps, and where they are annotated."""

    def __call__(
        self, text_id: TaskVideo, rng: ItemRandom | None = None
    ) -> tuple[list[list[int]], list[Segment]]:
        steps = [self.tokenize(step) for step in text_id[2]]
        return steps, read_segments(annotation_of(text_id, self.config))


@ALIGNERS.register()
class CrossTaskAligner(WindowAligner):
    """Windows of a video with a multi-hot target per second.

    caps, cmasks (steps, T); vfeats (W, F, D), vmasks (W, F); targets (sum of window lengths, steps) float32,
    overlaps repeated; sequence_targets (annotated segments) their steps from 0 in order of start; task,
    step_names, video_len.
    """

    def __call__(
        self,
        video_id: TaskVideo,
        video_feature: np.ndarray,
        text_feature: tuple[list[list[int]], list[Segment]],
        rng: ItemRandom | None = None,
    ) -> dict[str, Any]:
        task, video, names, n_steps = video_id
        steps, segments = text_feature
        vfeats, vmasks, ranges = self.windows(video_feature, video)
        video_targets = torch.zeros(len(video_feature), n_steps)
        for step, start_s, end_s in segments:
            if not 0 <= step < n_steps:
                raise ValueError(
                    f"task {task}, video {video!r}: step {step + 1} is annotated, but the task has "
                    f"{n_steps} steps."
                )
            video_targets[span(start_s, end_s, len(video_feature)), step] = 1.0
        caps, cmasks = self.pack(steps)
        return {
            "caps": caps,
            "cmasks": cmasks,
            "vfeats": vfeats,
            "vmasks": vmasks,
            "targets": torch.cat([video_targets[start:end] for start, end in ranges.tolist()]),
            "sequence_targets": torch.tensor(
                [step for step, *_ in sorted(segments, key=lambda segment: segment[1])], dtype=torch.long
            ),
            "video_id": video,
            "task": task,
            "step_names": tuple(names),
            "video_len": torch.tensor(len(video_feature)),
        }


def convert(source: Path, out: Path) -> str:
    """A release folder -> a new folder with the same files, whose annotations fit the tasks; lines and files
    that do not are counted."""
    primary = read_tasks(source / "tasks_primary.txt")
    tasks = {**primary, **read_tasks(source / "tasks_related.txt")}
    videos = read_videos(source / "videos.csv")
    known = {f"{task}_{video}" for task, names in videos.items() for video in names}
    dropped: Counter[str] = Counter()
    n_files = 0
    if out.exists():
        raise FileExistsError(f"{out} exists; choose a new folder, or remove that one.")
    partial = out.with_name(f".{out.name}.partial")  # takes the name `out` once it is whole
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "annotations").mkdir(parents=True)
    for path in sorted((source / "annotations").glob("*.csv")):
        if path.stem not in known:
            dropped["files of videos that videos.csv does not list"] += 1
            continue
        task = path.stem.partition("_")[0]
        if task not in tasks:
            raise ValueError(f"{source / 'videos.csv'}: task {task} is in neither list of tasks.")
        n_steps = len(tasks[task].steps)
        rows = [
            row for row, step, start_s, end_s in _steps(path) if _fits(step, start_s, end_s, n_steps, dropped)
        ]
        with open(partial / "annotations" / path.name, "w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
        n_files += 1
    for name in ("tasks_primary.txt", "tasks_related.txt", "videos.csv", "videos_val.csv"):
        shutil.copyfile(source / name, partial / name)
    os.replace(partial, out)
    n_videos = sum(map(len, videos.values()))
    return (
        f"{out}: {len(primary)} primary of {len(tasks)} tasks, {n_videos} videos, {n_files} annotated; "
        f"dropped: {listed(dropped)}"
    )


def _fits(step: int, start_s: float, end_s: float, n_steps: int, dropped: Counter[str]) -> bool:
    if not 1 <= step <= n_steps:
        dropped["steps that the task does not have"] += 1
        return False
    return is_possible((start_s, end_s), dropped)
