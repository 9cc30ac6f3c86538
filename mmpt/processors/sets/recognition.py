"""Action recognition on ready features: the official splits of UCF101 and HMDB51.

UCF101   ucfTrainTestlist/classInd.txt        1 ApplyEyeMakeup
         trainlist01.txt, testlist01.txt  ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1  (the number in
             training lists only)
HMDB51  <class>_test_split1.txt  April_09_brush_hair_u_nm_np1_ba_goo_0.avi 1  1 training, 2 test, 0 unused

Features are `<vfeat_dir>/<file name without extension>.npy`, (seconds or clips, D).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from mmpt.config import required
from mmpt.config.schema import DatasetConfig
from mmpt.processors.base import Aligner, MetaProcessor, PublishedList, TextProcessor
from mmpt.registry import ALIGNERS, META_PROCESSORS, TEXT_PROCESSORS
from mmpt.utils.seed import ItemRandom
from mmpt.utils.text import check_id, quoted, read_lines

UNUSED, TRAIN, TEST = 0, 1, 2  # HMDB51's tags, used for both
TAGS = ("0", "1", "2")
Members = dict[str, tuple[str, dict[int, int]]]  # video -> class, {split: tag}


def read_splits(folder: str | Path) -> Members:
    """Video -> (class, {split number: tag}), from a folder of either release.

    Raises:
        FileNotFoundError: the folder holds the lists of neither.
    """
    folder = Path(folder)
    members: Members = {}
    for path in sorted(folder.glob("t*list0[1-9].txt")):
        tag = TRAIN if path.name.startswith("trainlist") else TEST
        for line in read_lines(path):
            label, _, file = line.split()[0].partition("/")
            video = check_id(Path(file).stem, f"{path}: line {quoted(line)}")
            members.setdefault(video, (label, {}))[1][int(path.stem[-2:])] = tag
    for path in sorted(folder.glob("*_test_split[1-9].txt")):
        label = path.stem.rpartition("_test_split")[0]
        for line in read_lines(path):
            file, said = [*line.rsplit(maxsplit=1), ""][:2]
            where = f"{path}: line {quoted(line)}"
            if said not in TAGS:
                raise ValueError(f"{where}: expected <file> <tag>, the tag one of {', '.join(TAGS)}.")
            video = check_id(Path(file).stem, where)
            members.setdefault(video, (label, {}))[1][int(path.stem[-1])] = int(said)
    if not members:
        raise FileNotFoundError(
            f"{folder}: neither UCF101's trainlist01.txt, testlist01.txt, ... nor HMDB51's "
            "<class>_test_split1.txt"
        )
    return members


def words_of(label: str) -> str:
    """`ApplyEyeMakeup` or `brush_hair` in words."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", label).replace("_", " ").lower()


@META_PROCESSORS.register()
class RecognitionMetaProcessor(MetaProcessor):
    """All videos of the splits in dataset.annotation_path; item -> (video, (class index, tag per split)).
    `class_names` in words."""

    FILES: ClassVar = {"annotation_path": "folder of split lists, of UCF101 or of HMDB51"}
    PUBLISHED: ClassVar = {
        "test": [
            PublishedList(13320, 13320, "UCF101, Soomro et al. 2012"),
            PublishedList(6766, 6766, "HMDB51, Kuehne et al., ICCV 2011"),
        ]
    }

    def __init__(self, config: DatasetConfig):
        super().__init__(config)
        members = read_splits(self.split_path())
        labels = sorted({label for label, _ in members.values()})
        self.class_names = [words_of(label) for label in labels]
        splits = sorted({split for _, tags in members.values() for split in tags})
        has_features = self.has_features()
        self.data = [
            (
                video,
                (labels.index(members[video][0]), [members[video][1].get(split, UNUSED) for split in splits]),
            )
            for video in self.keep(sorted(members), has_features, str, "have no features")
        ]

    def split_path(self) -> str:
        """One folder holds all splits."""
        return required(self.config, "annotation_path")


@TEXT_PROCESSORS.register()
class RecognitionTextProcessor(TextProcessor):
    """Passes class and split tags on; tokenises class names for zero-shot recognition."""

    def __call__(
        self, text_id: tuple[int, list[int]], rng: ItemRandom | None = None
    ) -> tuple[int, list[int]]:
        return text_id


@ALIGNERS.register()
class RecognitionAligner(Aligner):
    """The first F seconds of a video with its class: vfeats, vmasks, label, splits, and an empty caption for
    models that want one."""

    def __call__(
        self,
        video_id: str,
        video_feature: np.ndarray,
        text_feature: tuple[int, list[int]],
        rng: ItemRandom | None = None,
    ) -> dict[str, Any]:
        label, splits = text_feature
        item = super().__call__(video_id, video_feature, [], rng)
        return {**item, "label": torch.tensor(label), "splits": torch.tensor(splits)}
