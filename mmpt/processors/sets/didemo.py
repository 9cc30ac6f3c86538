"""DiDeMo: moments of videos described in words (zero-shot test).

    test_data.json  [{"video": "54322086@N00_2408598493.avi", "description": "a red bird lands", "times":
        [[0, 0], [0, 1]]}, ...]

`times` are pairs of first and last chunk of 5 seconds, one per annotator.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import ClassVar

from mmpt.config.schema import DatasetConfig
from mmpt.processors.base import MetaProcessor, MissingData, PublishedList, TextProcessor
from mmpt.processors.downstream import DSAligner
from mmpt.registry import ALIGNERS, META_PROCESSORS, TEXT_PROCESSORS
from mmpt.utils.text import check_record, quoted, read_json, shown

CHUNKS, CHUNK_S = 6, 5  # half a minute in chunks of 5 seconds


@META_PROCESSORS.register()
class DiDeMoMetaProcessor(MetaProcessor):
    """Descriptions; item -> (video, description). `times` holds the annotated (first, last) chunks of each,
    from 0 to 5."""

    LIST = "test_data.json: [{video, description, times}]"
    PUBLISHED: ClassVar = {"test": [PublishedList(4021, 1004, "DiDeMo, Hendricks et al., ICCV 2017: test")]}

    def __init__(self, config: DatasetConfig):
        super().__init__(config)
        if "test" not in Path(self.split_path()).name:
            raise ValueError(
                f"dataset.test_path={self.split_path()}: DiDeMo is a zero-shot test; give its test_data.json."
            )
        records = read_json(self.split_path(), list)
        for index, record in enumerate(records):
            where = f"{self.split_path()}: record {index}"
            check_record(record, where, video=str, description=str, times=list)
            for pair in record["times"]:
                if (
                    not isinstance(pair, list)
                    or len(pair) != 2
                    or any(type(chunk) is not int for chunk in pair)
                ):
                    raise ValueError(f"{where}: times: expected pairs of chunk numbers, got {quoted(pair)}.")
        for record in records:
            if not record["description"].strip():
                raise MissingData(
                    f"{self.split_path()}: a description of video {record['video']!r} is empty."
                )
            if not record["times"] or not all(0 <= first <= last < CHUNKS for first, last in record["times"]):
                raise ValueError(
                    f"{self.split_path()}: video {record['video']!r}, {quoted(record['description'])}: times "
                    f"are {shown(record['times'])}; "
                    f"expected [first, last] chunks of 5 s with 0 <= first <= last < {CHUNKS}. Correct or "
                    "remove it."
                )
        records = self.with_features(records, itemgetter("video"))
        self.data = [(record["video"], record["description"]) for record in records]
        self.times: list[list[list[int]]] = [record["times"] for record in records]

    def segments(self) -> Iterator[tuple[str, list[tuple[float, float]]]]:
        for (video, _), times in zip(self.data, self.times, strict=True):
            yield video, [(CHUNK_S * first, CHUNK_S * (last + 1)) for first, last in times]


@TEXT_PROCESSORS.register()
class DiDeMoTextProcessor(TextProcessor):
    """Token ids of a description."""


@ALIGNERS.register()
class DiDeMoAligner(DSAligner):
    """One description and the first F seconds of its video."""
