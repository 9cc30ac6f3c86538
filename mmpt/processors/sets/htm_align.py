"""HTM-Align: which sentences of a narration are shown in the video, and when (zero-shot test).

    htm_align.json  {"<video>": [[1, 12.5, 17.0, "now chop the onion"], ...]}  alignable 0/1, start, end,
        sentence

Times of alignable sentences were corrected by hand. Features are whole videos, one row per second.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mmpt.config.schema import DatasetConfig
from mmpt.processors.base import Aligner, MetaProcessor, TextProcessor, check_feature, check_finite, required
from mmpt.processors.downstream import check_segment, read_json
from mmpt.registry import ALIGNERS, META_PROCESSORS, TEXT_PROCESSORS
from mmpt.utils.seed import ItemRandom

Sentence = tuple[int, float, float, str]


def read_sentences(path: str) -> dict[str, list[Sentence]]:
    """Video -> its sentences, videos in order of their names.

    Raises:
        ValueError: the file is of another kind, or a time is impossible.
    """
    videos = read_json(path, dict)
    for video, sentences in videos.items():
        if (
            not isinstance(sentences, list)
            or not sentences
            or any(len(s) != 4 or s[0] not in (0, 1) for s in sentences)
        ):
            raise ValueError(
                f"{path}: video {video!r}: expected a list of [alignable 0/1, start, end, sentence]; "
                "another data set's file?"
            )
        for index, (_, start_s, end_s, _) in enumerate(sentences):
            check_segment(start_s, end_s, f"{path}: video {video!r}: sentence {index}")
    return dict(sorted(videos.items()))


@META_PROCESSORS.register()
class HTMAlignMetaProcessor(MetaProcessor):
    """Videos of dataset.anno_path that have features; item -> (video, its sentences)."""

    def __init__(self, config: DatasetConfig):
        super().__init__(config)
        videos = read_sentences(self.split_path())
        has_features = self.has_features()
        self.data = self.keep(
            list(videos.items()), lambda item: has_features(item[0]), lambda item: item[0], "have no features"
        )

    def split_path(self) -> str:
        """There is one list, for testing."""
        return required(self.config, "anno_path")


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
