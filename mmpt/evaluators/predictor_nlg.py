"""Captions written by a model, one per clip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from mmpt.evaluators.predictor import Arrays, Predictor, item_name
from mmpt.registry import PREDICTORS

EMPTY = "none"  # stands for a caption without a word


@PREDICTORS.register()
class NLGPredictor(Predictor):
    """`hyps`, the captions that the model writes, and `refs`, those of the data set.

    `gen_param` of the project file holds the options of `MMFusionNLG.generate` (num_beams, length_penalty,
    ...).
    """

    def predict(self, batch: Mapping[str, Any], model: nn.Module) -> Arrays:
        if "ref" not in batch:
            raise ValueError(
                f"{self.config.source}: the items hold no `ref`; captioning needs dataset.split: test and "
                "DSNLGAligner."
            )
        ids = model.generate(batch["caps"], batch["vfeats"], batch["vmasks"], **(self.config.gen_param or {}))
        return {
            "hyps": [text.strip() or EMPTY for text in self.texts(ids)],
            "refs": list(batch["ref"]),
            "ids": [item_name(video_id) for video_id in batch["video_id"]],
        }
