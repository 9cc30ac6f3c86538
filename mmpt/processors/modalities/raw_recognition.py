"""Action recognition on frames: clips of the videos of UCF101 or HMDB51, by their official splits.

    dataset:
      meta_processor: RawRecognitionMetaProcessor
      video_processor: RawVideoProcessor
      text_processor: NoTextProcessor
      aligner: RawRecognitionAligner
      annotation_path: data/ucf101/ucfTrainTestlist     # or the folder of HMDB51's <class>_test_split1.txt
      train_path: data/ucf101/videos                    # CLASS/FILE; val_path and test_path are the same
      fold: 1
      raw: {frames: 32, fps: 30, size: 128}

Training draws clips at random, several of a video in each epoch; tests read clips spread evenly over a video,
and several crops of each. Source: GDT (Patrick et al. 2020), STiCA (2021), `eval_video.py`.

Letters: T frames of S x S pixels, K crops of a clip, R splits.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmpt.config import required
from mmpt.config.fields import option
from mmpt.config.schema import DatasetConfig
from mmpt.processors.modalities.clips import ClipAugment
from mmpt.processors.modalities.raw_clips import (
    RawAligner,
    RawFile,
    RawKeys,
    ShuffledMetaProcessor,
    list_videos,
)
from mmpt.processors.sets.recognition import (
    TEST,
    TRAIN,
    UNUSED,
    RecognitionMetaProcessor,
    read_splits,
    words_of,
)
from mmpt.registry import ALIGNERS, META_PROCESSORS
from mmpt.utils.seed import ItemRandom

Clip = tuple[Path, int]  # of the clips of a video, which one
Label = tuple[int, list[int]]  # class, and tag in each split


@dataclass(frozen=True, kw_only=True)
class RecognitionClips(RawKeys):
    """Clips of labelled videos."""

    fold: int = option(1, "split of UCF101 or HMDB51 that is trained on and tested", least=1)
    train_clips: int = option(10, "clips drawn of each training video in an epoch", least=1)
    test_clips: int = option(10, "clips of each test video, spread evenly", least=1)
    test_crops: int = option(
        3, "crops of each clip along the longer side: 1 (the middle) or 3", least=1, most=3
    )
    compat: bool = option(
        False,
        "tests scale clips at random and change their colours, as the released code does by mistake",
        formerly=("released_test_clips",),
    )


@META_PROCESSORS.register()
class RawRecognitionMetaProcessor(ShuffledMetaProcessor):
    """Clips of the training videos of split `dataset.fold`, or of its test videos; item -> ((path, clip),
    (class index, [tag in that split])).

    Attributes:
        class_names: in words, in the order of their index.
        folds: the split, or all, that tags are of.
    """

    Config = RecognitionClips
    FILES = RecognitionMetaProcessor.FILES
    LIST = "folder of videos, CLASS/FILE"
    all_splits = False

    def __init__(self, config: DatasetConfig):
        super().__init__(config)
        members = read_splits(required(config, "annotation_path"))
        labels = sorted({label for label, _ in members.values()})
        self.class_names = [words_of(label) for label in labels]
        known = sorted({split for _, tags in members.values() for split in tags})
        if config.fold not in known:
            listed = ", ".join(map(str, known))
            raise ValueError(f"dataset.fold={config.fold}: {config.annotation_path} has the splits {listed}.")
        self.folds = known if self.all_splits else [config.fold]
        wanted = {TRAIN, TEST} if self.all_splits else {TRAIN if self.split == "train" else TEST}
        folder = Path(self.split_path())
        if not folder.is_dir():
            raise FileNotFoundError(f"dataset.{self.SPLIT_KEYS[self.split]}={folder}: no such folder.")
        files = {path.stem: path for path in list_videos(folder)}
        tags = {video: [of.get(fold, UNUSED) for fold in self.folds] for video, (_, of) in members.items()}
        videos = [video for video in sorted(members) if wanted & set(tags[video])]
        clips = {"train": range(config.train_clips), "test": range(config.test_clips)}
        self.data = self.in_order = [
            ((files[video], clip), (labels.index(members[video][0]), tags[video]))
            for video in self.keep(videos, files.__contains__, str, "have no video file")
            # one clip from the middle is enough to watch a training by
            for clip in clips.get(self.split, (config.test_clips // 2,))
        ]

    def videos(self, index: int) -> list[str]:
        return [self.data[index][0][0].stem]


@META_PROCESSORS.register()
class RawRecognitionSplitsMetaProcessor(RawRecognitionMetaProcessor):
    """The same of all videos of all splits, for neighbours and classifiers on frozen vectors."""

    all_splits = True


@ALIGNERS.register()
class RawRecognitionAligner(RawAligner):
    """One clip: in training at a random place and augmented, else where its number says, and K crops of it.

    Returns `video` (3, T, S, S), in tests (K, 3, T, S, S); `targets` (class), `splits` (R) tags, `cmasks`
    of no words, `video_id`.
    """

    Config = RecognitionClips

    def __init__(self, config: DatasetConfig):
        super().__init__(config)
        if config.test_crops not in (1, 3):
            raise ValueError(f"dataset.test_crops={config.test_crops}: expected 1 or 3.")

    def augmentation(self) -> ClipAugment:
        return self.clips.augment(box=True, jitter=0.8, gray=0.0, blur=0.0)

    def __call__(
        self, video_id: Clip, video_feature: RawFile, text_feature: Label, rng: ItemRandom
    ) -> dict[str, Any]:
        path, clip = video_id
        label, tags = text_feature
        room = max(0.0, video_feature.info.duration_s - self.clips.frames / self.clips.fps)
        share = rng.numpy.uniform() if self.training else clip / self.config.test_clips
        frames = self.frames(path, share * room)
        return {
            "video": self.crops(frames, rng) if self.config.split == "test" else self.picture(frames, rng),
            "targets": torch.tensor(label),
            "splits": torch.tensor(tags),
            "cmasks": torch.zeros(1, dtype=torch.bool),
            "video_id": path.stem,
        }

    def crops(self, frames: Tensor, rng: ItemRandom) -> Tensor:
        """(K, 3, T, S, S)."""
        released = self.config.compat
        views = self.augment.released_views(frames, rng.torch) if released else self.augment.views(frames)
        return views if self.config.test_crops == 3 else views[1:2]
