"""Action recognition on ready features of several modalities: the splits of UCF101 and HMDB51, a file per
video and modality."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from mmpt.processors.modalities.modalities import (
    Item,
    ModalityAligner,
    ModalityKeys,
    open_store,
    read_modalities,
)
from mmpt.processors.sets.recognition import RecognitionMetaProcessor
from mmpt.registry import ALIGNERS, META_PROCESSORS
from mmpt.utils.seed import ItemRandom


@META_PROCESSORS.register()
class ModalityRecognitionMetaProcessor(RecognitionMetaProcessor):
    """All videos of the splits in dataset.annotation_path; item -> (Item, (class index, tag per split)).

    Features are `<path>/<file name without extension>.npy` of every entry of dataset.modalities. With
    `on_missing: mask` videos that lack some of them stay, otherwise they are left out, or refused.
    """

    Config = ModalityKeys

    def has_features(self) -> Callable[[str], bool]:
        stores = [open_store(modality, self.config) for modality in read_modalities(self.config)]
        enough = any if self.config.on_missing == "mask" else all
        return lambda video: enough(video in store for store in stores)

    def __getitem__(self, index: int) -> tuple[Item, tuple[int, list[int]]]:
        video, label = self.data[index]
        return Item(video, video, None, ("",), ""), label

    def videos(self, index: int) -> list[str]:
        return [self.data[index][0]]

    def segments(self) -> Iterator[tuple[str, list[tuple[float, float]]]]:
        """None: each modality has a folder of its own."""
        return iter(())


@ALIGNERS.register()
class ModalityRecognitionAligner(ModalityAligner):
    """What `ModalityAligner` gives of the whole video, with an empty caption, and its `label` and
    `splits`."""

    def __call__(
        self,
        video_id: Item,
        video_feature: Mapping[str, Any],
        text_feature: Any,
        rng: ItemRandom | None = None,
    ) -> dict[str, Any]:
        label, splits = text_feature
        item = super().__call__(video_id, video_feature, {"captions": [[]], "subtitle": []}, rng)
        return {**item, "label": torch.tensor(label), "splits": torch.tensor(splits)}
