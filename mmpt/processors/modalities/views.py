"""Views of a clip in all its modalities for GDT: in order, reversed in time, from another moment, and both.

Letters: S views of an item, L positions of a modality, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mmpt.config.schema import DatasetConfig
from mmpt.processors.base import MissingData, needed
from mmpt.processors.gdt import Views, alone, checked_views
from mmpt.processors.modalities.modalities import REVERSED, Item, ModalityAligner
from mmpt.processors.tokens import SpecialIds
from mmpt.registry import ALIGNERS
from mmpt.utils.seed import ItemRandom


@ALIGNERS.register()
class ModalityViewAligner(ModalityAligner):
    """A window of max_video_len seconds, the same in every stream, in the views that `dataset.views` lists.

    The shifted window lies at least `dataset.min_shift` seconds (null: max_video_len) from the first, at a
    random place, or as far as the item allows; an item no longer than a window has none, and `view_valid` is
    false. Reversal flips the order of the features, each of which still holds its own moment as it was: only
    coarse order is reversed; with `dataset.reversal: precomputed` the same seconds are read from features of
    frames played backwards. Captions are the same in all views.

    Returns what `ModalityAligner` does, every tensor with a first axis S (without it if S is 1), and
    `view_valid` (S): item-major batches, see `layout` of GDTLoss. All modalities must be there:
    `dataset.on_missing: drop`.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(ModalityAligner.Config, Views):
        """Views of a clip and its modalities."""

    def __init__(self, config: DatasetConfig, special: SpecialIds | None = None):
        super().__init__(config, special)
        self.views = checked_views(config)
        if config.on_missing == "mask" or config.modality_dropout:
            raise ValueError(
                "ModalityViewAligner contrasts modalities that are there: set dataset.on_missing: drop, "
                "modality_dropout: 0."
            )
        self.rates = {modality.name: modality.rate for modality in self.modalities if not modality.is_text}
        self.precomputed = config.reversal == "precomputed"

    def __call__(
        self,
        video_id: Item,
        video_feature: Mapping[str, Any],
        text_feature: Any,
        rng: ItemRandom | None = None,
    ) -> dict[str, Any]:
        lengths = [
            len(video_feature[name]) / rate
            for name, rate in self.rates.items()
            if video_feature.get(name) is not None
        ]
        first, second = self.windows(min(lengths, default=0.0), needed(rng, self).numpy)
        shifted = [view.startswith("shift") for view in self.views]
        views = []
        for view, is_shifted in zip(self.views, shifted, strict=True):
            start_s = second if is_shifted and second is not None else first
            cut = {
                name: self._cut(name, video_feature, start_s, view.endswith("rev"))
                for name in video_feature
                if name in self.rates
            }
            views.append(super().__call__(video_id, cut, text_feature, rng))
        item = {key: torch.stack([view[key] for view in views]) for key in views[0] if key != "video_id"}
        item["view_valid"] = torch.tensor([second is not None or not is_shifted for is_shifted in shifted])
        return {**alone(item), "video_id": video_id.id}

    def windows(self, length_s: float, rng: np.random.Generator) -> tuple[float, float | None]:
        """Starts of the window and of its shifted copy, in seconds; None where the item is no longer than a
        window."""
        room = length_s - self.max_video_len
        if room <= 0:
            return 0.0, None
        first, draw = rng.uniform(0, room), rng.random()
        shift = self.config.min_shift or self.max_video_len
        before, after = (
            max(0.0, first - shift),
            max(0.0, room - first - shift),
        )  # how many places there are on either side
        if before + after == 0:
            return first, 0.0 if first > room - first else room
        place = draw * (before + after)
        return first, place if place < before else first + shift + place - before

    def _cut(
        self, name: str, features: Mapping[str, np.ndarray | None], start_s: float, is_reversed: bool
    ) -> np.ndarray | None:
        feature = features[name]
        if feature is None:
            return None
        start = int(start_s * self.rates[name])
        end = min(len(feature), start + max(1, round(self.max_video_len * self.rates[name])))
        if not is_reversed or not self.precomputed:
            return feature[start:end][:: -1 if is_reversed else 1]
        backwards = features[name + REVERSED]
        if backwards is None or len(backwards) != len(feature):
            found = (
                "is not there"
                if backwards is None
                else f"has {len(backwards)} positions instead of {len(feature)}"
            )
            raise MissingData(
                f"dataset.reversal: precomputed, but a file <id>{REVERSED}.npy of {name} {found}."
            )
        return backwards[len(backwards) - end : len(backwards) - start]
