"""COIN: labelling every second of an instructional video with its step.

    COIN.json   {"database": {"<video>": {"subset": "training",
                 "annotation": [{"id": "58", "label": "wipe screen", "segment": [3.2, 11.1]}]}}}

Step ids run from 1 to 778; 0 is background.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from mmpt.config.schema import DatasetConfig
from mmpt.processors.annotations import read_database, span
from mmpt.processors.base import MetaProcessor, PublishedList, TextProcessor
from mmpt.processors.convert import is_possible, listed, write_json
from mmpt.processors.downstream import WindowAligner
from mmpt.processors.masking import IGNORED
from mmpt.registry import ALIGNERS, META_PROCESSORS, TEXT_PROCESSORS
from mmpt.utils.seed import ItemRandom
from mmpt.utils.text import number, quoted

BACKGROUND = 0
Segment = tuple[int, float, float]  # step id, start and end in seconds
TEST = [PublishedList(2797, 2797, "COIN, Tang et al., CVPR 2019: testing")]


@META_PROCESSORS.register()
class COINActionSegmentationMetaProcessor(MetaProcessor):
    """Videos of the subset; item -> (video, list of (step id, start, end)). `step_names` maps ids to labels,
    for zero-shot labelling."""

    LIST = "COIN.json: {database: {video: {subset, duration, annotation: [{id, label, segment}]}}}"
    PUBLISHED: ClassVar = {
        "train": [PublishedList(9030, 9030, "COIN, Tang et al., CVPR 2019: training")],
        "valid": TEST,
        "test": TEST,
    }

    def __init__(self, config: DatasetConfig):
        super().__init__(config)
        database = read_database(self.split_path(), "annotation", id=object, label=str)
        for video, entry in database.items():
            for index, step in enumerate(entry["annotation"]):
                step["id"] = _step(step["id"], f"{self.split_path()}: video {video!r}: segment {index}: id")
        subset = "training" if self.split == "train" else "testing"
        videos = [video for video, entry in database.items() if entry["subset"] == subset]
        self.data = [
            (video, [(step["id"], *step["segment"]) for step in database[video]["annotation"]])
            for video in self.keep(videos, self.has_features(), str, "have no features")
        ]
        tested = (
            step
            for entry in database.values()
            if entry["subset"] == "testing"
            for step in entry["annotation"]
        )
        self.seconds = {video: entry.get("duration") or 0.0 for video, entry in database.items()}
        self.step_names = dict(sorted({step["id"]: step["label"] for step in tested}.items()))

    def segments(self) -> Iterator[tuple[str, list[tuple[float, float]]]]:
        yield from ((video, [(start, end) for _, start, end in steps]) for video, steps in self.data)

    def durations(self) -> dict[str, float]:
        return self.seconds


def _step(value: Any, where: str) -> int:
    """A step id, which is a whole number above that of the background."""
    found = number(value, where)
    if found != int(found) or found <= BACKGROUND:
        raise ValueError(f"{where}: expected a whole number from 1 on, got {quoted(value)}.")
    return int(found)


@TEXT_PROCESSORS.register()
class COINActionSegmentationTextProcessor(TextProcessor):
    """Passes the segments on; tokenises names of steps for zero-shot labelling."""

    def __call__(self, text_id: list[Segment], rng: ItemRandom | None = None) -> list[Segment]:
        return text_id


@ALIGNERS.register()
class COINActionSegmentationAligner(WindowAligner):
    """Windows with a label per second.

    targets (W, F) int64, -100 on padding; video_targets (video_len); vfeats (W, F, D), vmasks (W, F); caps
    (W, 4) are dummies [CLS] [SEP] [PAD] [SEP] with mask [0, 1, 0, 1], for models that want a text.
    """

    def __call__(
        self,
        video_id: str,
        video_feature: np.ndarray,
        text_feature: list[Segment],
        rng: ItemRandom | None = None,
    ) -> dict[str, Any]:
        vfeats, vmasks, ranges = self.windows(video_feature, video_id)
        video_targets = torch.full((len(video_feature),), BACKGROUND)
        for step, start_s, end_s in text_feature:
            video_targets[span(start_s, end_s, len(video_feature))] = step
        targets = torch.full(vmasks.shape, IGNORED)
        for row, (start, end) in enumerate(ranges.tolist()):
            targets[row, : end - start] = video_targets[start:end]
        caps = torch.tensor([self.special.cls, self.special.sep, self.special.pad, self.special.sep]).repeat(
            len(ranges), 1
        )
        return {
            "caps": caps,
            "cmasks": torch.tensor([False, True, False, True]).repeat(len(ranges), 1),
            "vfeats": vfeats,
            "vmasks": vmasks,
            "targets": targets,
            "video_id": video_id,
            "video_len": torch.tensor(len(video_feature)),
            "video_targets": video_targets,
        }


def convert(source: Path, out: Path) -> str:
    """COIN.json -> the same without impossible segments."""
    database = read_database(source, "annotation", impossible=True)
    dropped: Counter[str] = Counter()
    cleaned = {
        video: {
            **entry,
            "annotation": [
                step
                for step in entry["annotation"]
                if is_possible(step["segment"], dropped, entry.get("duration"))
            ],
        }
        for video, entry in database.items()
    }
    write_json(out, {"database": cleaned})
    subsets = Counter(entry["subset"] for entry in cleaned.values())
    return f"{out}: {len(cleaned)} videos ({listed(subsets)}); segments dropped: {listed(dropped)}"
