"""Under which conditions the published numbers were obtained: how many queries and gallery items, and which settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PublishedSet:
    """A published test set.

    Attributes:
        queries: what is counted as one query, or one video for metrics over videos.
        gallery: items that are ranked; None where nothing is ranked.
        source: who says so.
    """

    queries: int
    gallery: int | None
    source: str

    def __str__(self) -> str:
        gallery = "" if self.gallery is None else f" against {self.gallery}"
        return f"{self.queries}{gallery} ({self.source})"


_FULL_VIDEO = [PublishedSet(436, 436, "MIL-NCE's list; TempCLR, Norton")]
TEST_SETS: dict[tuple[str, str], list[PublishedSet]] = {  # (meta processor, metric)
    ("MSRVTTMetaProcessor", "RetrievalMetric"): [PublishedSet(1000, 1000, "1k-A, JSFusion, Yu et al., ECCV 2018")],
    ("MSRVTTQAMetaProcessor", "QAMetric"): [PublishedSet(2990, None, "multiple choice, official test videos")],
    ("YoucookMetaProcessor", "RetrievalMetric"): [
        PublishedSet(3350, 3350, "MIL-NCE's list; VideoCLIP, TempCLR, Norton"),
        PublishedSet(3492, 3492, "official validation"),
        PublishedSet(3216, 3216, "GRAM's list"),
    ],
    ("YoucookMetaProcessor", "FullVideoRetrievalMetric"): _FULL_VIDEO,
    ("YoucookFullVideoBGMetaProcessor", "FullVideoBGRetrievalMetric"): _FULL_VIDEO,
    ("COINActionSegmentationMetaProcessor", "COINActionSegmentationMetric"): [PublishedSet(2797, None, "COIN, Tang et al., CVPR 2019")],
    ("CrossTaskMetaProcessor", "CrossTaskMetric"): [PublishedSet(1850, None, "CrossTask release with 30 training videos per task")],
    ("DiDeMoMetaProcessor", "DiDeMoMetric"): [PublishedSet(4021, None, "DiDeMo, Hendricks et al., ICCV 2017")],
    ("HTMAlignMetaProcessor", "HTMAlignMetric"): [PublishedSet(80, None, "HTM-Align, Han et al., CVPR 2022")],
    ("YoucookNLGMetaProcessor", "NLGMetric"): [PublishedSet(3492, None, "official validation")],
}

_CLIPS = {"dataset.max_video_len": (32,), "dataset.max_len": (96,)}
_WINDOWS = {**_CLIPS, "dataset.sliding_window": (16,), "dataset.sliding_window_size": (32,)}
_COMPAT = {"eval.compat": (True,)}  # ties by position; DTW and OTAM as released
SETTINGS: dict[str, dict[str, tuple]] = {  # metric -> key -> values in the released project files
    "RetrievalMetric": {**_CLIPS, **_COMPAT},
    "QAMetric": {"dataset.max_video_len": (16, 32), "dataset.max_len": (96,)},
    "FullVideoRetrievalMetric": {**_CLIPS, **_COMPAT},
    "FullVideoBGRetrievalMetric": {**_CLIPS, **_COMPAT, "dataset.sliding_window": (16,), "dataset.sliding_window_size": (16,)},
    "COINActionSegmentationMetric": _WINDOWS,
    "CrossTaskMetric": {**_WINDOWS, "dataset.n_train": (30,)},
    "DiDeMoMetric": _CLIPS,
    "HTMAlignMetric": _CLIPS,
    "NLGMetric": {**_CLIPS, "gen_param.num_beams": (5,), "model.max_decode_length": (24,)},
}


def published_sets(settings: Mapping[str, Any]) -> list[PublishedSet]:
    """The published test sets of a project file's data and metric; empty where none is known."""
    return TEST_SETS.get((settings.get("dataset", {}).get("meta_processor"), settings.get("metric")), [])


def same_size(settings: Mapping[str, Any], facts: Mapping[str, Any]) -> PublishedSet | None:
    """The published test set with as many queries and gallery items; None where there is none."""
    return next((known for known in published_sets(settings) if (known.queries, known.gallery) == _size(facts)), None)


def departures(settings: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    """One sentence per count or setting that differs from those behind the published numbers.

    Args:
        settings: the resolved project file.
        facts: of the outcome; `queries` (or `videos`) and `gallery` are read.
    """
    found = []
    known = published_sets(settings)
    if known and same_size(settings, facts) is None:
        queries, gallery = _size(facts)
        against = "" if gallery is None else f" against {gallery}"
        found.append(f"test set: {queries}{against}; published: {' or '.join(map(str, known))}")
    for key, values in SETTINGS.get(settings.get("metric"), {}).items():
        value = _at(settings, key)
        if value not in values:
            found.append(f"{key}: {value}; published: {' or '.join(map(str, values))}")
    return found


def _size(facts: Mapping[str, Any]) -> tuple[int | None, int | None]:
    return facts.get("queries", facts.get("videos")), facts.get("gallery")


def _at(settings: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key; None where a part of it is absent."""
    value: Any = settings
    for part in key.split("."):
        value = (value or {}).get(part)
    return value
