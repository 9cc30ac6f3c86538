"""YouCook2: clips of cooking videos, whole videos, captioning.

    youcook_val.pkl  [{"id": "xHr8X2Wpmno_0", "caption": "pick the ends off the verdalago"}, ...]; id =
        video, clip index
    youcookii_annotations_trainval.json {"database": {"xHr8X2Wpmno": {"subset": "validation", "annotations":
                                        [{"segment": [47, 60], "id": 0, "sentence": "pick the ends off the
                                        verdalago"}]}}}
    val_list.txt                       113/GLd3aX16zBg

Features are whole videos, `<vfeat_dir>/<video>.npy`; a clip is the rows of its segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmpt.config.schema import DatasetConfig
from mmpt.processors.base import MetaProcessor, MissingData, TextProcessor, VideoProcessor, required
from mmpt.processors.downstream import WindowAligner, read_database
from mmpt.processors.sets.msrvtt import read_table
from mmpt.registry import ALIGNERS, META_PROCESSORS, TEXT_PROCESSORS, VIDEO_PROCESSORS
from mmpt.utils.safe_pickle import load_plain_pickle
from mmpt.utils.seed import ItemRandom

Record = dict[str, str]  # {"id": "<video>_<clip index>", "caption": ...}
Clip = tuple[str, int, int]  # video, first second, last second (exclusive)


def load_annotations(path: str | Path) -> dict[str, list[dict]]:
    """Video -> annotated clips, from the official JSON."""
    return {video: entry["annotations"] for video, entry in read_database(path, "annotations").items()}


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
        video, segment = row["video_id"], (int(float(row["start"])), int(float(row["end"])))
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


def split_id(record_id: str) -> tuple[str, int]:
    """(video, clip index) of a record's id; video names may hold underscores."""
    video, _, index = record_id.rpartition("_")
    return video, int(index)


@META_PROCESSORS.register()
class YoucookMetaProcessor(MetaProcessor):
    """Clips; item -> ((video, start, end), caption). use_annotation_text takes the sentence of the JSON
    instead of the pickled caption."""

    def __init__(self, config: DatasetConfig):
        super().__init__(config)
        annotations = load_annotations(required(config, "trainval_annotation"))
        self.data = [self.item(record, annotations) for record in self.records()]

    def records(self) -> list[Record]:
        """The records of the split whose video has features."""
        records = load_plain_pickle(self.split_path())
        if not isinstance(records, list) or not all(
            isinstance(record, dict) and "id" in record for record in records
        ):
            raise ValueError(
                f"{self.split_path()}: expected a pickled list of {{'id', 'caption'}}; is this the file "
                "of another data set?"
            )
        has_features = self.has_features()
        return self.keep(
            records,
            lambda record: has_features(split_id(record["id"])[0]),
            lambda record: split_id(record["id"])[0],
            "have no features",
        )

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
        if not caption:
            raise MissingData(f"{self.split_path()}: record {record['id']!r} has no caption.")
        start, end = clip["segment"]
        return (video, int(start), int(end)), caption


@META_PROCESSORS.register()
class YoucookNLGMetaProcessor(MetaProcessor):
    """Captioning: all clips of the listed videos; item -> ((video, start, end), sentence)."""

    def __init__(self, config: DatasetConfig):
        super().__init__(config)
        annotations = load_annotations(required(config, "trainval_annotation"))
        videos = [
            line.strip().split("/")[-1]
            for line in Path(self.split_path()).read_text(encoding="utf-8").splitlines()
            if line.strip()
        ]
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
