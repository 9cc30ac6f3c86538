"""Frozen embeddings of every modality of labelled videos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from mmpt.evaluators.predictor import Arrays, Predictor, check_finite
from mmpt.registry import PREDICTORS


@PREDICTORS.register()
class ModalityRecognitionPredictor(Predictor):
    """`pooled_<modality>` (M, D) and `present` (M, K) of the videos, their `labels` (M), `splits` (M, R),
    `ids`, and the class names."""

    def predict(self, batch: Mapping[str, Any], model: nn.Module) -> Arrays:
        own = {name: value for name, value in batch.items() if name not in ("caps", "cmasks")}
        items = model.encode_items(batch["caps"][:, 0], batch["cmasks"][:, 0], **own)
        return {
            **{
                f"pooled_{name}": check_finite(items[f"pooled_{name}"], batch["video_id"])
                for name in model.names
            },
            "present": torch.stack([items["present"][name] for name in model.names], dim=1),
            "labels": batch["label"],
            "splits": batch["splits"],
            "ids": list(batch["video_id"]),
        }

    def __call__(self, loader: Iterable, model: nn.Module, device=None, progress: Callable = iter) -> Arrays:
        arrays = super().__call__(loader, model, device, progress)
        return arrays | {
            "modalities": list(model.names),
            "class_names": list(loader.dataset.meta_processor.class_names),
        }
