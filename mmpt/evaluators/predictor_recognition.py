"""Action recognition three ways: by class names, by a linear probe, by nearest neighbours.

Letters: N videos, C classes, R splits, D width, T text columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from mmpt.evaluators.frozen import neighbour_scores, probe_scores
from mmpt.evaluators.predictor import Arrays, Predictor, check_finite, item_name
from mmpt.evaluators.tasks.recognition import TRAIN
from mmpt.registry import PREDICTORS


class RecognitionPredictor(Predictor):
    """`vectors` (N, D) of the videos by the model's video side, `labels` (N), `splits` (N, R) with 1
    training, 2 test, 0 unused."""

    def predict(self, batch: Mapping[str, Any], model: nn.Module) -> Arrays:
        pooled = model.forward_video(batch["vfeats"], batch["vmasks"], batch["caps"], batch["cmasks"]).pooled
        return {
            "vectors": check_finite(pooled.float(), batch["video_id"]),
            "labels": batch["label"],
            "splits": batch["splits"],
            "ids": [item_name(video_id) for video_id in batch["video_id"]],
        }

    def __call__(self, loader: Iterable, model: nn.Module, device=None, progress: Callable = iter) -> Arrays:
        arrays = super().__call__(loader, model, device, progress)
        vectors, labels = torch.from_numpy(arrays.pop("vectors")), torch.from_numpy(arrays["labels"])
        n_classes = len(loader.dataset.meta_processor.class_names)
        return arrays | {
            "scores": self.scores(normalize(vectors, dim=-1), labels, arrays["splits"], n_classes)
        }

    def scores(self, vectors: Tensor, labels: Tensor, splits: np.ndarray, n_classes: int) -> np.ndarray:
        """(R, N, C), from unit vectors; every split has its own training videos."""
        of_splits = []
        for number, split in enumerate(splits.T, start=1):
            train = torch.from_numpy(split == TRAIN)
            if not train.any():
                raise ValueError(f"split {number} has no training video (entry {TRAIN}).")
            of_splits.append(self.class_scores(vectors, vectors[train], labels[train], n_classes))
        return torch.stack(of_splits).numpy()

    def class_scores(self, vectors: Tensor, train: Tensor, labels: Tensor, n_classes: int) -> Tensor:
        """(N, C) of one split, from its training videos (M, D) and their labels (M)."""
        raise NotImplementedError


@PREDICTORS.register()
class RecognitionZSPredictor(RecognitionPredictor):
    """Scores are dot products with the text vectors of the class names (`meta_processor.class_names`);
    nothing is trained."""

    def __call__(self, loader: Iterable, model: nn.Module, device=None, progress: Callable = iter) -> Arrays:
        device = torch.device(device) if device is not None else next(model.parameters()).device
        dataset = loader.dataset
        ids = [dataset.text_processor.tokenize(name) for name in dataset.meta_processor.class_names]
        caps, cmasks = dataset.aligner.pack(ids)
        model.to(device).eval()
        with torch.inference_mode():
            self.class_vectors = model.forward_text(caps.to(device), cmasks.to(device)).pooled.float().cpu()
        return super().__call__(loader, model, device, progress)

    def scores(self, vectors: Tensor, labels: Tensor, splits: np.ndarray, n_classes: int) -> np.ndarray:
        """(N, C): a video's length changes no order of its classes, so unit vectors do."""
        return (vectors @ self.class_vectors.T).numpy()


@PREDICTORS.register()
class RecognitionProbePredictor(RecognitionPredictor):
    """A linear classifier on frozen unit vectors, fitted to each split's training videos by L-BFGS: the same
    result in every run."""

    def class_scores(self, vectors: Tensor, train: Tensor, labels: Tensor, n_classes: int) -> Tensor:
        return probe_scores(vectors, train, labels, n_classes)


@PREDICTORS.register()
class RecognitionNNPredictor(RecognitionPredictor):
    """A class scores the cosine of its nearest training video: accuracy is that of the nearest neighbour.

    Also gives `neighbour_ranks` (R, N), the place of the nearest training video of the right class among all
    training videos.
    """

    def scores(self, vectors: Tensor, labels: Tensor, splits: np.ndarray, n_classes: int) -> np.ndarray:
        self.labels, self.ranks = labels, []
        return super().scores(vectors, labels, splits, n_classes)

    def class_scores(self, vectors: Tensor, train: Tensor, labels: Tensor, n_classes: int) -> Tensor:
        scores, ranks = neighbour_scores(vectors, train, labels, self.labels, n_classes)
        self.ranks.append(ranks)
        return scores

    def __call__(self, loader: Iterable, model: nn.Module, device=None, progress: Callable = iter) -> Arrays:
        arrays = super().__call__(loader, model, device, progress)
        return arrays | {"neighbour_ranks": torch.stack(self.ranks).numpy()}
