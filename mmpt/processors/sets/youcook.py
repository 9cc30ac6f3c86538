"""YouCook2: clips of cooking videos, whole videos, captioning.

    youcook_val.pkl  [{"id": "xHr8X2Wpmno_0", "caption": "pick the ends off the verdalago"}, ...];
                     id = video, clip index
    youcookii_annotations_trainval.json
                     {"database": {"xHr8X2Wpmno": {"subset": "validation", "annotations": [
                         {"segment": [47, 60], "id": 0, "sentence": "pick the ends off the verdalago"}]}}}
    val_list.txt     113/GLd3aX16zBg

Features are whole videos, `<vfeat_dir>/<video>.npy`; a clip is the rows of its segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from mmpt.config import required
from mmpt.config.fields import Section, option
from mmpt.config.schema import DatasetConfig
from mmpt.processors.annotations import read_database
from mmpt.processors.base import MetaProcessor, MissingData, PublishedList, TextProcessor, VideoProcessor
from mmpt.processors.downstream import WindowAligner
from mmpt.registry import ALIGNERS, META_PROCESSORS, TEXT_PROCESSORS, VIDEO_PROCESSORS
from mmpt.utils.safe_pickle import load_plain_pickle, save_plain_pickle
from mmpt.utils.seed import ItemRandom
from mmpt.utils.text import check_id, check_record, is_count, number, quoted, read_ids, read_table

Record = dict[str, str]  # {"id": "<video>_<clip index>", "caption": ...}
Clip = tuple[str, int, int]  # video, first second, last second (exclusive)
OFFICIAL = PublishedList(3492, 457, "official annotations, validation")
CLIPS = [
    PublishedList(3350, 436, "MIL-NCE's csv; VideoCLIP, TempCLR, Norton"),
    OFFICIAL,
    PublishedList(3216, 419, "GRAM's list"),
]
FULL_VIDEOS = [PublishedList(436, 436, "MIL-NCE's csv; TempCLR, Norton")]


def load_annotations(path: str | Path) -> dict[str, list[dict]]:
    """Video -> annotated clips, from the official JSON."""
    database = read_database(path, "annotations", sentence=object)
    return {video: entry["annotations"] for video, entry in database.items()}


def records_from_json(path: str | Path, subset: str) -> list[Record]:
    """The records of a subset ("training" or "validation") of the official JSON, in its order."""
    return [
        {"id": f"{video}_{index}", "caption": clip["sentence"]}
        for video, entry in read_database(path, "annotations").items()
        if entry["subset"] == subset
        for index, clip in enumerate(entry["annotations"])
    ]


def records_from_milnce_csv(csv_path: str | Path, annotation_path: str | Path) -> list[Record]:
    """The records of MIL-NCE's retrieval gallery (columns end, start, task, text, video_id): 3350 clips of
    436 validation videos.

    Each row is one annotated clip, found by its segment; a video with two clips of one segment takes them in
    order.

    Raises:
        ValueError: a row has no clip in the annotation.
    """
    clips = {
        video: [tuple(int(second) for second in clip["segment"]) for clip in annotations]
        for video, annotations in load_annotations(annotation_path).items()
    }
    taken: set[tuple[str, int]] = set()
    records = []
    for row in read_table(csv_path, ("video_id", "start", "end", "text")):
        video = check_id(row["video_id"], str(csv_path))
        start, end = (number(row[key], f"{csv_path}: video {video}: {key}") for key in ("start", "end"))
        segment = (int(start), int(end))
        index = next(
            (
                i
                for i, known in enumerate(clips.get(video, ()))
                if known == segment and (video, i) not in taken
            ),
            None,
        )
        if index is None:
            raise ValueError(f"{csv_path}: video {video!r} has no clip {segment} in {annotation_path}.")
        taken.add((video, index))
        records.append({"id": f"{video}_{index}", "caption": row["text"]})
    return records


def split_id(record_id: str, where: str = "") -> tuple[str, int]:
    """(video, clip index) of a record's id; video names may hold underscores. `where` begins the message."""
    video, _, index = record_id.rpartition("_") if isinstance(record_id, str) else ("", "", "")
    if not is_count(index):
        raise ValueError(f"{where}id {quoted(record_id)}: expected <video>_<clip number>.")
    return check_id(video, f"{where}id {quoted(record_id)}"), int(index)


class _Clips(MetaProcessor):
    """Items ((video, start, end), caption) of the annotation."""

    FILES: ClassVar = {
        "trainval_annotation": "youcookii_annotations_trainval.json: {database: {video: {subset, duration, "
        "annotations}}}"
    }

    def durations(self) -> dict[str, float]:
        database = read_database(required(self.config, "trainval_annotation"), "annotations")
        return {video: entry.get("duration") or 0.0 for video, entry in database.items()}


@dataclass(frozen=True, kw_only=True)
class YoucookKeys(Section):
    """Files of the data set."""

    trainval_annotation: str | None = option(None, "YouCook2 annotation JSON")
    use_annotation_text: bool = option(
        False, "take the sentence of the annotation instead of the pickled caption"
    )


@META_PROCESSORS.register()
class YoucookMetaProcessor(_Clips):
    """Clips; item -> ((video, start, end), caption). use_annotation_text takes the sentence of the JSON
    instead of the pickled caption."""

    LIST = "pickled list of {id: <video>_<clip>, caption}; `data convert youcook` makes it"
    PUBLISHED: ClassVar = {
        "test": CLIPS,
        "valid": CLIPS,
        "train": [
            PublishedList(10337, 1333, "official annotations, training"),
            PublishedList(9283, None, "GRAM's list"),
        ],
        "test videos": FULL_VIDEOS,
    }

    Config = YoucookKeys

    def __init__(self, config: DatasetConfig):
        super().__init__(config)
        annotations = load_annotations(required(config, "trainval_annotation"))
        self.data = [self.item(record, annotations) for record in self.records()]

    def records(self) -> list[Record]:
        """The records of the split whose video has features."""
        path = self.split_path()
        records = load_plain_pickle(path)
        if not isinstance(records, list):
            raise ValueError(
                f"{path}: expected a pickled list of {{'id', 'caption'}}; is this another data set's file?"
            )
        for index, record in enumerate(records):
            check_record(record, f"{path}: record {index}", id=str)
            split_id(record["id"], f"{path}: record {index}: ")
        return self.with_features(records, lambda record: split_id(record["id"])[0])

    def item(self, record: Record, annotations: dict[str, list[dict]]) -> tuple[Clip, str]:
        """One clip with its text."""
        video, index = split_id(record["id"])
        try:
            clip = annotations[video][index]
        except (KeyError, IndexError) as error:
            raise ValueError(
                f"{self.split_path()}: record {record['id']!r} has no clip in "
                f"{self.config.trainval_annotation}."
            ) from error
        caption = clip.get("sentence") if self.config.use_annotation_text else record.get("caption")
        if not caption or not isinstance(caption, str):
            raise MissingData(f"{self.split_path()}: record {record['id']!r} has no caption.")
        start, end = clip["segment"]
        return (video, int(start), int(end)), caption


@META_PROCESSORS.register()
class YoucookNLGMetaProcessor(_Clips):
    """Captioning: all clips of the listed videos; item -> ((video, start, end), sentence)."""

    LIST = "list of <recipe>/<video>"
    PUBLISHED: ClassVar = {"test": [OFFICIAL]}

    Config = YoucookKeys

    def __init__(self, config: DatasetConfig):
        super().__init__(config)
        annotations = load_annotations(required(config, "trainval_annotation"))
        videos = [line.split("/")[-1] for line in read_ids(self.split_path(), folders=True)]
        has_features = self.has_features()
        videos = self.keep(
            videos,
            lambda video: has_features(video) and video in annotations,
            str,
            "have no features or no annotation",
        )
        self.data = [
            ((video, int(clip["segment"][0]), int(clip["segment"][1])), clip["sentence"])
            for video in videos
            for clip in annotations[video]
        ]


@VIDEO_PROCESSORS.register()
class YoucookVideoProcessor(VideoProcessor):
    """The seconds [start, end) of a video."""

    def __call__(self, video_id: Clip) -> np.ndarray:
        if not isinstance(video_id, tuple) or len(video_id) != 3:
            raise ValueError(
                f"item id {quoted(video_id)}: expected a clip (video, start, end); VideoProcessor reads "
                "whole videos."
            )
        video, start, end = video_id
        clip = super().__call__(video)[start:end]
        if not len(clip):
            raise MissingData(
                f"video {video!r}: its features end before the clip of seconds {start} to {end}. Extract "
                "the whole video."
            )
        return clip


@META_PROCESSORS.register()
class YoucookFullVideoBGMetaProcessor(YoucookMetaProcessor):
    """Whole videos, background kept; item -> (video, captions of its clips in pickle order), in the order of
    their first record."""

    PUBLISHED: ClassVar = {"test": FULL_VIDEOS}

    def __init__(self, config: DatasetConfig):
        super().__init__(config)
        captions: dict[str, list[str]] = {}
        for (video, _, _), caption in self.data:
            captions.setdefault(video, []).append(caption)
        self.data = list(captions.items())


@VIDEO_PROCESSORS.register()
class YoucookFullVideoBGProcessor(VideoProcessor):
    """The features of a whole video."""


@TEXT_PROCESSORS.register()
class YoucookFullVideoBGTextProcessor(TextProcessor):
    """Token ids of each caption of a video."""

    def __call__(self, text_id: Sequence[str], rng: ItemRandom | None = None) -> list[list[int]]:
        return [self.tokenize(text) for text in text_id]


@ALIGNERS.register()
class YoucookFullVideoBGAligner(WindowAligner):
    """Windows of a whole video, and all its captions: caps, cmasks (n, T), vfeats (W, F, D), vmasks (W, F),
    video_len."""

    def __call__(
        self,
        video_id: str,
        video_feature: np.ndarray,
        text_feature: list[list[int]],
        rng: ItemRandom | None = None,
    ) -> dict[str, Any]:
        vfeats, vmasks, _ = self.windows(video_feature, video_id)
        caps, cmasks = self.pack(text_feature)
        return {
            "caps": caps,
            "cmasks": cmasks,
            "vfeats": vfeats,
            "vmasks": vmasks,
            "video_id": video_id,
            "video_len": torch.tensor(len(video_feature)),
        }


def convert(
    source: Path,
    out: Path,
    *,
    subset: Literal["validation", "training"] = "validation",
    csv: Path | None = None,
    videos: Path | None = None,
) -> str:
    """youcookii_annotations_trainval.json -> pickled records.

    Args:
        subset: clips of these videos
        csv: MIL-NCE's validation csv: these clips, with its texts
        videos: file of video ids: only these
    """
    records = records_from_milnce_csv(csv, source) if csv else records_from_json(source, subset)
    if not records:
        raise ValueError(f"{source}: no clip in subset {subset!r}; it has training and validation.")
    if videos is not None:
        wanted = set(read_ids(videos))
        absent = wanted - {split_id(record["id"])[0] for record in records}
        if absent:
            raise ValueError(
                f"{videos}: {len(absent)} videos are not in this gallery, e.g. {sorted(absent)[:3]}."
            )
        records = [record for record in records if split_id(record["id"])[0] in wanted]
    save_plain_pickle(records, out)
    return f"{out}: {len(records)} clips of {len({split_id(record['id'])[0] for record in records})} videos"
