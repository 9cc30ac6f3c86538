"""A data set of the four pluggable parts."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import Dataset, default_collate

from mmpt.config.schema import Config
from mmpt.processors.base import MetaProcessor, MissingData, build_parts
from mmpt.utils.columns import COLUMNS, LABELLED, LENGTHS, filled_columns, labels_in_use, last_column
from mmpt.utils.seed import DEFAULT_SEED, ItemRandom
from mmpt.utils.text import quoted

logger = logging.getLogger(__name__)


class MMDataset(Dataset):
    """Items drawn from streams seeded by (seed, epoch, index): the same whatever the number of workers.

    Args:
        meta_processor, video_processor, text_processor, aligner: the four parts; the last three may be any
            callables that take and give the same.
        seed: of all draws.
        fixed: items of a test set: the same in every epoch, carrying their index as `idx`, and never
            replaced.
        skip_missing: an item without features or captions is replaced by the next that has them (counted and
            logged); else it is an error.
    """

    MAX_SKIPS = 100  # in a row; beyond that the paths are wrong rather than a few videos absent

    def __init__(
        self,
        meta_processor: MetaProcessor,
        video_processor: Any,
        text_processor: Any,
        aligner: Any,
        *,
        seed: int = DEFAULT_SEED,
        fixed: bool = False,
        skip_missing: bool = True,
    ):
        if not len(meta_processor):
            raise ValueError("the data set has no items.")
        self.meta_processor = meta_processor
        self.video_processor = video_processor
        self.text_processor = text_processor
        self.aligner = aligner
        self.seed = seed
        self.fixed = fixed
        self.skip_missing = skip_missing and not fixed
        self.epoch = 0
        self.n_skipped = 0  # in this process

    def __len__(self) -> int:
        return len(self.meta_processor)

    def set_epoch(self, epoch: int) -> None:
        """Draw differently from now on (not in a test set)."""
        if not self.fixed:
            self.epoch = epoch

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of a data set of {len(self)} items.")
        rng = ItemRandom.for_item(self.seed, self.epoch, index)
        for step in range(min(self.MAX_SKIPS, len(self))):
            try:
                return self._item((index + step) % len(self), rng)
            except MissingData as error:
                if not self.skip_missing:
                    raise
                self.n_skipped += 1
                # name some, then count, do not flood the log
                level = logging.WARNING if self.n_skipped <= 10 or not self.n_skipped % 100 else logging.DEBUG
                at = (index + step) % len(self)
                logger.log(
                    level,
                    "skipped item %d (%d so far), the next one takes its place: %s",
                    at,
                    self.n_skipped,
                    error,
                )
        raise MissingData(
            f"items {index} to {index + step} all lack features or captions; check dataset.vfeat_dir and "
            "the captions."
        )

    def _item(self, index: int, rng: ItemRandom) -> dict[str, Any]:
        pair = self.meta_processor[index]
        if len(pair) != 2:
            name = type(self.meta_processor).__name__
            raise ValueError(
                f"item {index} of {name} has {len(pair)} parts, {quoted(pair)}; expected (video id, text id)."
            )
        video_id, text_id = pair
        item = self.aligner(video_id, self.video_processor(video_id), self.text_processor(text_id, rng), rng)
        return {**item, "idx": index} if self.fixed else item

    def collate(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """A batch: tensors stacked, numbers made tensors, strings and tuples listed, None left out.

        Where items have modalities, `columns` says of each mask how many of its columns are in use, else
        `lengths` how many each clip fills; `labelled` says how many positions carry a label. Who goes by it
        would have to ask the device.
        """
        batch = {}
        for key in items[0]:
            values = [item[key] for item in items]
            if isinstance(values[0], torch.Tensor):
                # one item may be a whole retrieval batch of tens of megabytes: no copy
                batch[key] = values[0][None] if len(values) == 1 else torch.stack(values)
            elif isinstance(values[0], (int, float)):
                batch[key] = default_collate(values)
            elif values[0] is not None:
                batch[key] = values
        labels = [key for key in batch if "label" in key and isinstance(batch[key], torch.Tensor)]
        if labels:  # a label for each item says nothing of positions
            batch[LABELLED] = {key: labels_in_use(batch[key]) for key in labels if batch[key].dim() > 1}
        masks = [key for key in batch if "masks" in key and isinstance(batch[key], torch.Tensor)]
        if any(key.endswith("_masks") for key in masks):
            batch[COLUMNS] = {key: last_column(batch[key].flatten(0, -2)) for key in masks}
        else:
            counted = {key: filled_columns(batch[key]) for key in masks}
            batch[LENGTHS] = {key: n for key, n in counted.items() if n is not None}
        return batch


def build_dataset(config: Config, split: str) -> MMDataset:
    """The data set of a split, from the class names under `dataset:`.

    Args:
        config: resolved project file.
        split: "train", "valid" or "test".
    """
    dataset = replace(config.dataset, split=split)
    parts = build_parts(dataset, str(config.source))
    seed = config.trainer.run_seed
    return MMDataset(*parts, seed=seed, fixed=split == "test", skip_missing=dataset.on_missing != "error")
