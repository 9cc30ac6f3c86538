"""HTM-Align: which sentences of a narration are shown in the video, and when (zero-shot test).

    htm_align.json  {"<video>": [[1, 12.5, 17.0, "now chop the onion"], ...]}  alignable 0/1, start, end,
        sentence

Times of alignable sentences were corrected by hand. Features are whole videos, one row per second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from mmpt.config import required
from mmpt.config.fields import Section, option
from mmpt.config.schema import DatasetConfig
from mmpt.processors.annotations import check_segment
from mmpt.processors.base import (
    Aligner,
    MetaProcessor,
    PublishedList,
    TextProcessor,
    check_feature,
    check_finite,
)
from mmpt.processors.convert import is_possible, listed, write_json
from mmpt.registry import ALIGNERS, META_PROCESSORS, TEXT_PROCESSORS
from mmpt.utils.seed import ItemRandom
from mmpt.utils.text import check_id, check_kind, number, quoted, read_json, shown

Sentence = tuple[int, float, float, str]
EXPECTED = "expected a list of [alignable 0/1, start, end, sentence]; another data set's file?"


def read_sentences(path: str) -> dict[str, list[Sentence]]:
    """Video -> its sentences, videos in order of their names.

    Raises:
        ValueError: the file is of another kind, or a time is impossible.
    """
    videos = _sentences(path)
    for video, sentences in videos.items():
        for index, (_, start_s, end_s, _) in enumerate(sentences):
            check_segment(start_s, end_s, f"{path}: video {video!r}: sentence {index}")
    return dict(sorted(videos.items()))


def _sentences(path: str | Path) -> dict[str, list[Sentence]]:
    """The same before their times are looked at."""
    found: dict[str, list[Sentence]] = {}
    for video, sentences in read_json(path, dict, nan=True).items():
        where = f"{path}: video {shown(repr(video))}"
        if not isinstance(sentences, list) or not sentences:
            raise ValueError(f"{where}: {EXPECTED} Got {quoted(sentences)}.")
        found[check_id(video, str(path))] = []
        for index, sentence in enumerate(sentences):
            here = f"{where}: sentence {index}"
            if not isinstance(sentence, list) or len(sentence) != 4 or sentence[0] not in (0, 1):
                raise ValueError(f"{here}: {EXPECTED} Got {quoted(sentence)}.")
            start_s, end_s = (number(time, here, finite=False) for time in sentence[1:3])
            found[video].append((int(sentence[0]), start_s, end_s, check_kind(sentence[3], str, here)))
    return found


@META_PROCESSORS.register()
class HTMAlignMetaProcessor(MetaProcessor):
    """Videos of dataset.anno_path that have features; item -> (video, its sentences)."""

    FILES: ClassVar = {"anno_path": "htm_align.json: {video: [[alignable, start, end, sentence]]}"}
    PUBLISHED: ClassVar = {"test": [PublishedList(80, 80, "HTM-Align, Han et al., CVPR 2022")]}

    @dataclass(frozen=True, kw_only=True)
    class Config(Section):
        """The annotation."""

        anno_path: str | None = option(None, "HTM-Align annotation JSON")

    def __init__(self, config: DatasetConfig):
        super().__init__(config)
        videos = read_sentences(self.split_path())
        self.data = self.with_features(list(videos.items()))

    def split_path(self) -> str:
        """There is one list, for testing."""
        return required(self.config, "anno_path")

    def segments(self) -> Iterator[tuple[str, list[tuple[float, float]]]]:
        yield from ((video, [(start, end) for _, start, end, _ in said]) for video, said in self.data)


@TEXT_PROCESSORS.register()
class HTMAlignTextProcessor(TextProcessor):
    """(token ids of each sentence, (N, 3) of alignable, start, end)."""

    def __call__(
        self, text_id: list[Sentence], rng: ItemRandom | None = None
    ) -> tuple[list[list[int]], np.ndarray]:
        return [self.tokenize(text) for *_, text in text_id], np.array(
            [times for *times, _ in text_id], dtype=np.float64
        )


@ALIGNERS.register()
class HTMAlignAligner(Aligner):
    """A whole video and all its sentences: caps, cmasks (N, T), vfeats (seconds, D), vmasks (seconds),
    annotations (N, 3).

    The predictor cuts the windows, because which sentences a window is compared with depends on all of them.
    """

    def __call__(
        self,
        video_id: str,
        video_feature: np.ndarray,
        text_feature: tuple[list[list[int]], np.ndarray],
        rng: ItemRandom | None = None,
    ) -> dict[str, Any]:
        sentences, annotations = text_feature
        caps, cmasks = self.pack(sentences)
        vfeats = torch.from_numpy(np.asarray(check_feature(video_feature, video_id), dtype=np.float32))
        return {
            "caps": caps,
            "cmasks": cmasks,
            "vfeats": check_finite(vfeats[None], [video_id])[0],
            "vmasks": torch.ones(len(vfeats), dtype=torch.bool),
            "annotations": torch.from_numpy(annotations),
            "video_id": video_id,
        }


def convert(source: Path, out: Path) -> str:
    """htm_align.json -> the same without impossible or empty sentences, each video's sentences by start."""
    dropped: Counter[str] = Counter()
    cleaned = {}
    for video, sentences in _sentences(source).items():
        possible = [sentence for sentence in sentences if is_possible(sentence[1:3], dropped)]
        spoken = [sentence for sentence in possible if sentence[3].strip()]
        dropped["empty"] += len(possible) - len(spoken)
        if spoken:
            cleaned[video] = sorted(spoken, key=lambda sentence: sentence[1])
        else:
            dropped["videos without a sentence left"] += 1
    write_json(out, cleaned)
    alignable = sum(sentence[0] for sentences in cleaned.values() for sentence in sentences)
    total = sum(map(len, cleaned.values()))
    return (
        f"{out}: {len(cleaned)} videos, {total} sentences, {alignable} alignable; dropped: {listed(dropped)}"
    )
