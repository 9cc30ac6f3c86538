"""Moments of a video, ranked by how well they fit a description (DiDeMo)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from torch import nn

from mmpt.evaluators.predictor import Arrays, Predictor, check_finite
from mmpt.evaluators.tasks.didemo import rank_moments
from mmpt.registry import PREDICTORS


@PREDICTORS.register()
class DiDeMoPredictor(Predictor):
    """`rankings` (descriptions, 21, 2) of moments and `times` (descriptions, annotators, 2) of the
    annotators, both padded with -1."""

    def __call__(self, loader: Iterable, model: nn.Module, device=None, progress: Callable = iter) -> Arrays:
        arrays = super().__call__(loader, model, device, progress)
        meta = loader.dataset.meta_processor
        asked = arrays.pop("index")
        annotated = [meta.times[index] for index in asked]
        padded = np.full((len(annotated), max(map(len, annotated)), 2), -1)
        for row, of_row in zip(padded, annotated, strict=True):
            row[: len(of_row)] = of_row
        return arrays | {
            "times": padded,
            "ids": [f"{meta[index][0]}_{place}" for place, index in enumerate(asked)],
        }

    def predict(self, batch: Mapping[str, Any], model: nn.Module) -> Arrays:
        outputs = model(**batch)
        n_seconds = batch["vfeats"].shape[1]
        seconds = outputs["video_outputs"][:, 1 : n_seconds + 1].float()  # (B, F, D)
        texts = outputs["pooled_text"].float()
        for vectors in seconds, texts:
            check_finite(vectors, batch["video_id"])
        parts = zip(seconds, batch["vmasks"], texts, strict=True)
        return {"rankings": [rank_moments(*part) for part in parts], "index": batch["idx"].tolist()}
