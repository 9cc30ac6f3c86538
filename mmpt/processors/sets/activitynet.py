"""ActivityNet Captions: a paragraph on each video, and the video that it tells of (zero-shot test).

val_1.json  {"v_uqiMw7tQ1Cc": {"duration": 55.15, "timestamps": [[0.28, 54.0], ...], "sentences": ["a woman
...", ...]}}
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from mmpt.config.schema import DatasetConfig
from mmpt.processors.base import MetaProcessor, MissingData, PublishedList
from mmpt.registry import META_PROCESSORS
from mmpt.utils.text import read_json


@META_PROCESSORS.register()
class ActivityNetMetaProcessor(MetaProcessor):
    """Videos with their paragraphs; item -> (video, its sentences joined)."""

    LIST = "val_1.json: {video: {duration, timestamps, sentences}}"
    PUBLISHED: ClassVar = {
        "test": [PublishedList(4917, 4917, "ActivityNet Captions, Krishna et al., ICCV 2017: val_1")]
    }

    def __init__(self, config: DatasetConfig):
        super().__init__(config)
        path = self.split_path()
        self.database = read_json(path, dict)
        for video, entry in self.database.items():
            if not isinstance(entry, dict) or not {"timestamps", "sentences"} <= entry.keys():
                raise ValueError(
                    f"{path}: video {video!r}: expected timestamps and sentences, as in val_1.json."
                )
            if not any(sentence.strip() for sentence in entry["sentences"]):
                raise MissingData(f"{path}: video {video!r} has no sentence.")
        items = [
            (video, " ".join(sentence.strip() for sentence in entry["sentences"]))
            for video, entry in self.database.items()
        ]
        self.data = self.with_features(items)

    def segments(self) -> Iterator[tuple[str, list[tuple[float, float]]]]:
        for video, _ in self.data:
            yield video, [(start, end) for start, end in self.database[video]["timestamps"]]

    def durations(self) -> dict[str, float]:
        return {video: float(entry.get("duration", 0.0)) for video, entry in self.database.items()}
