"""Few-shot sequence classification: episodes of videos from classes that training never saw.

    test.list   7/112.npy or 7/112     <class folder>/<video>; the folder names the class

Features are `<vfeat_dir>/<class folder>/<video>.npy`, (frames, D). An episode holds `way` classes with
`shots` labelled videos each (the support) and `queries` videos each to be classified. Protocol: Cao et al.,
"Few-Shot Video Classification via Temporal Alignment", CVPR 2020 (arXiv 1906.11415): 5 ways, 8 frames per
video, 10 000 test episodes.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from mmpt.config import required
from mmpt.config.fields import Section, option
from mmpt.config.schema import DatasetConfig
from mmpt.processors.base import MetaProcessor, MissingData, NoTextProcessor, VideoProcessor, check_feature
from mmpt.registry import ALIGNERS, META_PROCESSORS, TEXT_PROCESSORS, VIDEO_PROCESSORS
from mmpt.utils.seed import ItemRandom
from mmpt.utils.text import read_ids

EPISODE_SEEDS = {"train": 0, "valid": 1, "test": 2}


@dataclass(frozen=True, kw_only=True)
class EpisodeKeys(Section):
    """Size and number of episodes."""

    way: int | None = option(None, "few-shot: classes in an episode", least=1)
    shots: int | None = option(None, "few-shot: labelled videos per class of an episode", least=1)
    queries: int | None = option(None, "few-shot: videos to classify per class of an episode", least=1)
    episodes: int | None = option(None, "few-shot: episodes in an epoch or a test", least=1)


@META_PROCESSORS.register()
class FewShotMetaProcessor(MetaProcessor):
    """dataset.episodes episodes; item -> (videos, classes): supports class by class, then queries class by
    class; classes from 0 to way-1.

    Episode i is the same in every run and every epoch.
    """

    LIST = "list of <class folder>/<video>"

    Config = EpisodeKeys

    def __init__(self, config: DatasetConfig):
        super().__init__(config)
        self.way, self.shots, self.queries = (required(config, name) for name in ("way", "shots", "queries"))
        folder = Path(required(config, "vfeat_dir"))
        videos = self.keep(
            [line.removesuffix(".npy") for line in read_ids(self.split_path(), folders=True)],
            lambda name: (folder / f"{name}.npy").is_file(),
            str,
            "have no features",
        )
        classes = defaultdict(list)
        for name in videos:
            label, _, rest = name.partition("/")
            if not rest:
                raise ValueError(f"{self.split_path()}: expected lines <class folder>/<video>, got {name!r}.")
            classes[label].append(name)
        needed = self.shots + self.queries
        self.classes = [names for names in classes.values() if len(names) >= needed]
        self.report_missing(
            f"classes have fewer than {needed} videos",
            [label for label, names in classes.items() if len(names) < needed],
        )
        if len(self.classes) < self.way:
            raise MissingData(
                f"{self.split_path()}: {len(self.classes)} classes with at least {needed} videos; "
                f"an episode of dataset.way={self.way} needs more."
            )
        self.data = range(required(config, "episodes"))

    def __getitem__(self, index: int) -> tuple[tuple[str, ...], list[int]]:
        random = np.random.default_rng((EPISODE_SEEDS[self.split], index))
        chosen = [
            random.permutation(self.classes[i])[: self.shots + self.queries]
            for i in random.permutation(len(self.classes))[: self.way]
        ]
        support = [str(name) for names in chosen for name in names[: self.shots]]
        query = [str(name) for names in chosen for name in names[self.shots :]]
        labels = (
            np.repeat(np.arange(self.way), self.shots).tolist()
            + np.repeat(np.arange(self.way), self.queries).tolist()
        )
        return (*support, *query), labels

    def videos(self, index: int) -> list[str]:
        return list(self[index][0])


@VIDEO_PROCESSORS.register()
class FewShotVideoProcessor(VideoProcessor):
    """dataset.max_video_len frames of each video, evenly spread from first to last: (videos, F, D)."""

    FILES: ClassVar = {"vfeat_dir": "folder of <class folder>/<video>.npy, (frames, features)"}

    def __init__(self, config: DatasetConfig):
        super().__init__(config)
        self.rate = 1.0  # frames are spread over all rows
        self.n_frames = required(config, "max_video_len")

    def __call__(self, video_id: tuple[str, ...]) -> np.ndarray:
        features = [
            check_feature(super(FewShotVideoProcessor, self).__call__(name), name) for name in video_id
        ]
        return np.stack(
            [feature[np.linspace(0, len(feature) - 1, self.n_frames).astype(int)] for feature in features]
        )


@TEXT_PROCESSORS.register()
class FewShotTextProcessor(NoTextProcessor):
    """Passes the classes on."""


@ALIGNERS.register()
class FewShotAligner:
    """support (S, F, D), support_labels (S), query (Q, F, D), query_labels (Q), video_id (the queries)."""

    Config = EpisodeKeys

    def __init__(self, config: DatasetConfig):
        self.n_support = required(config, "way") * required(config, "shots")

    def __call__(
        self,
        video_id: tuple[str, ...],
        video_feature: np.ndarray,
        text_feature: list[int],
        rng: ItemRandom | None = None,
    ) -> dict[str, Any]:
        frames, labels, n = (
            torch.from_numpy(video_feature).float(),
            torch.tensor(text_feature),
            self.n_support,
        )
        if not frames.isfinite().all():
            raise ValueError(
                f"episode of {', '.join(video_id)}: features hold NaN or infinite values. Extract them again."
            )
        return {
            "support": frames[:n],
            "support_labels": labels[:n],
            "query": frames[n:],
            "query_labels": labels[n:],
            "video_id": list(video_id[n:]),
        }
