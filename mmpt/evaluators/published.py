"""Under which conditions the published numbers were obtained: how many items, and which settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PublishedSet:
    """A published list of items.

    Attributes:
        items: entries of the list (captions, clips, videos), before ids without features are left out.
        videos: different videos among them; None where not published.
        source: who says so.
    """

    items: int
    videos: int | None
    source: str

    def __str__(self) -> str:
        return f"{self.items}" + (f" of {self.videos} videos" if self.videos else "") + f" ({self.source})"


_JSFUSION = [PublishedSet(1000, 1000, "1k-A, JSFusion, Yu et al., ECCV 2018")]
_YOUCOOK_TEST = [
    PublishedSet(3350, 436, "MIL-NCE's csv; VideoCLIP, TempCLR, Norton"),
    PublishedSet(3492, 457, "official annotations, validation"),
    PublishedSet(3216, 419, "GRAM's list"),
]
_FULL_VIDEOS = [PublishedSet(436, 436, "MIL-NCE's csv; TempCLR, Norton")]
_COIN_TEST = [PublishedSet(2797, 2797, "COIN, Tang et al., CVPR 2019: testing")]
_CROSSTASK_TEST = [
    PublishedSet(
        1850,
        None,
        "CrossTask release, all features, n_train 30: 2750 annotated - 360 for validation - 18 x 30",
    )
]
_HOW2_VALID = [PublishedSet(23834, 23834, "how2_s3d_val.lst")]
PUBLISHED: dict[tuple[str, str], list[PublishedSet]] = {  # (meta processor, split)
    ("MSRVTTMetaProcessor", "test"): _JSFUSION,
    ("MSRVTTMetaProcessor", "valid"): _JSFUSION,
    ("MSRVTTMetaProcessor", "train"): [
        PublishedSet(9000, 9000, "9k: all but 1k-A"),
        PublishedSet(7010, 7010, "7k: official train and validate"),
    ],
    ("MSRVTTQAMetaProcessor", "test"): [PublishedSet(2990, 2990, "multiple choice, official test videos")],
    ("YoucookMetaProcessor", "test"): _YOUCOOK_TEST,
    ("YoucookMetaProcessor", "valid"): _YOUCOOK_TEST,
    ("YoucookMetaProcessor", "train"): [
        PublishedSet(10337, 1333, "official annotations, training"),
        PublishedSet(9283, None, "GRAM's list"),
    ],
    ("YoucookFullVideoBGMetaProcessor", "test"): _FULL_VIDEOS,
    ("YoucookNLGMetaProcessor", "test"): [PublishedSet(3492, 457, "official annotations, validation")],
    ("COINActionSegmentationMetaProcessor", "train"): [
        PublishedSet(9030, 9030, "COIN, Tang et al., CVPR 2019: training")
    ],
    ("COINActionSegmentationMetaProcessor", "valid"): _COIN_TEST,
    ("COINActionSegmentationMetaProcessor", "test"): _COIN_TEST,
    ("CrossTaskMetaProcessor", "train"): [
        PublishedSet(540, None, "CrossTask release, all features, n_train 30: 18 x 30")
    ],
    ("CrossTaskMetaProcessor", "valid"): _CROSSTASK_TEST,
    ("CrossTaskMetaProcessor", "test"): _CROSSTASK_TEST,
    ("DiDeMoMetaProcessor", "test"): [PublishedSet(4021, 1004, "DiDeMo, Hendricks et al., ICCV 2017: test")],
    ("HTMAlignMetaProcessor", "test"): [PublishedSet(80, 80, "HTM-Align, Han et al., CVPR 2022")],
    ("RecognitionMetaProcessor", "test"): [
        PublishedSet(13320, 13320, "UCF101, Soomro et al. 2012"),
        PublishedSet(6766, 6766, "HMDB51, Kuehne et al., ICCV 2011"),
    ],
    ("ModalityMetaProcessor", "test"): [
        PublishedSet(items, items if name != "YouCook2" else 419, f"GRAM's {name}")
        for items, name in (
            (1000, "MSR-VTT"),
            (1003, "DiDeMo"),
            (4917, "ActivityNet"),
            (1500, "VATEX"),
            (3216, "YouCook2"),
        )
    ],
    ("How2MetaProcessor", "valid"): _HOW2_VALID,
    ("ShardedHow2MetaProcessor", "valid"): _HOW2_VALID,
}
FULL_VIDEO_METRIC = "FullVideoRetrievalMetric"  # its queries are the videos of a list of clips

_CLIPS = {"dataset.max_video_len": (32,), "dataset.max_len": (96,)}
_WINDOWS = {**_CLIPS, "dataset.sliding_window": (16,), "dataset.sliding_window_size": (32,)}
_COMPAT = {"eval.compat": (True,)}  # ties by position; DTW and OTAM as released
SETTINGS: dict[str, dict[str, tuple]] = {  # metric -> key -> values in the released project files
    "RetrievalMetric": {**_CLIPS, **_COMPAT},
    "QAMetric": {"dataset.max_video_len": (16, 32), "dataset.max_len": (96,)},
    "FullVideoRetrievalMetric": {**_CLIPS, **_COMPAT},
    "FullVideoBGRetrievalMetric": {
        **_CLIPS,
        **_COMPAT,
        "dataset.sliding_window": (16,),
        "dataset.sliding_window_size": (16,),
    },
    "COINActionSegmentationMetric": _WINDOWS,
    "CrossTaskMetric": {**_WINDOWS, "dataset.n_train": (30,)},
    "DiDeMoMetric": _CLIPS,
    "HTMAlignMetric": _CLIPS,
    "NLGMetric": {**_CLIPS, "gen_param.num_beams": (5,), "model.max_decode_length": (24,)},
}


def published_sets(settings: Mapping[str, Any]) -> list[PublishedSet]:
    """The published test sets of a project file's data, as its metric counts them; empty where none is
    known."""
    if settings.get("metric") == FULL_VIDEO_METRIC:
        return _FULL_VIDEOS
    return PUBLISHED.get((settings.get("dataset", {}).get("meta_processor"), "test"), [])


def same_size(settings: Mapping[str, Any], facts: Mapping[str, Any]) -> PublishedSet | None:
    """The published test set with as many queries, and gallery items where there are any; None where there is
    none."""
    queries, gallery = _size(facts)
    return next(
        (
            known
            for known in published_sets(settings)
            if queries == known.items and gallery in (None, known.items)
        ),
        None,
    )


def departures(settings: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    """One sentence per count or setting that differs from those behind the published numbers.

    Args:
        settings: the resolved project file.
        facts: of the result; `queries` (or `videos`) and `gallery` are read.
    """
    found = []
    known = published_sets(settings)
    if known and same_size(settings, facts) is None:
        queries, gallery = _size(facts)
        against = "" if gallery is None else f" against a gallery of {gallery}"
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
