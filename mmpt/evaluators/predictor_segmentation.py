"""Long videos labelled second by second: COIN (fine-tuned and zero-shot) and CrossTask. One video per batch.

Letters: T seconds of the video, W windows, F seconds per window, C labels, K steps, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmpt.evaluators.predictor import Arrays, Predictor, check_finite, item_name
from mmpt.evaluators.tasks.crosstask import place_steps
from mmpt.evaluators.windows import merge_windows
from mmpt.registry import PREDICTORS


class WindowPredictor(Predictor):
    """Base of predictors over windows of one long video."""

    def merge(self, rows: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Windows -> (T, ...), averaged where they overlap."""
        dataset = self.config.dataset
        rows = merge_windows(
            rows, int(batch["video_len"]), dataset.sliding_window, dataset.sliding_window_size
        ).cpu()
        return check_finite(rows, batch["video_id"])


@PREDICTORS.register()
class COINPredictor(WindowPredictor):
    """`Y_pred` and `Y_true`, labels of the seconds of all videos; `lengths` of the videos."""

    def predict(self, batch: Mapping[str, Any], model: nn.Module) -> Arrays:
        return self.labels(self.merge(model(**batch)["logits"], batch).argmax(-1), batch)

    def labels(self, predicted: Tensor, batch: Mapping[str, Any]) -> Arrays:
        """What the metric reads, from the labels (T) of one video."""
        return {
            "Y_pred": predicted,
            "Y_true": batch["video_targets"][0],
            "lengths": [len(predicted)],
            "ids": [item_name(video_id) for video_id in batch["video_id"]],
        }


def label_threshold(labels: Tensor) -> float:
    """Highest dot product of two different labels (C, D): what is less like a label than labels are like each
    other is background."""
    products = labels @ labels.T
    return float(products.fill_diagonal_(-torch.inf).max())


def label_seconds(scores: Tensor, threshold: float) -> Tensor:
    """(T, C) scores -> (T) labels from 1, or 0 (background) where no score exceeds the threshold."""
    best, label = scores.max(-1)
    return torch.where(best > threshold, label + 1, 0)


@PREDICTORS.register()
class COINZSPredictor(COINPredictor):
    """Labels seconds by the step name they are closest to; nothing was trained for it.

    Step names come from the data set: `meta_processor.step_names` (id -> name), tokenised and packed by the
    data set's own parts.
    """

    def __call__(self, loader: Iterable, model: nn.Module, device=None, progress: Callable = iter) -> Arrays:
        device = torch.device(device) if device is not None else next(model.parameters()).device
        dataset = loader.dataset
        names = dataset.meta_processor.step_names
        caps, cmasks = dataset.aligner.label_captions(
            [dataset.text_processor.tokenize(name) for name in names.values()]
        )
        model.to(device).eval()
        with torch.inference_mode():
            self.step_vectors = model.forward_text(caps.to(device), cmasks.to(device)).pooled.float()
        self.threshold = label_threshold(self.step_vectors)
        self.step_ids = torch.tensor([0, *names])  # label k of `label_seconds` -> id of the k-th step
        return super().__call__(loader, model, device, progress)

    def predict(self, batch: Mapping[str, Any], model: nn.Module) -> Arrays:
        vfeats, vmasks, caps, cmasks = (batch[name][0] for name in ("vfeats", "vmasks", "caps", "cmasks"))
        seconds = model.forward_video(vfeats, vmasks, caps, cmasks).outputs[
            :, 1 : vfeats.shape[1] + 1
        ]  # (W, F, D)
        scores = self.merge(seconds.float() @ self.step_vectors.T, batch)
        return self.labels(self.step_ids[label_seconds(scores, self.threshold)], batch)


@PREDICTORS.register()
class CrossTaskPredictor(WindowPredictor):
    """`Y_pred` and `Y_true`, one (T, K) array per video, and its task."""

    def predict(self, batch: Mapping[str, Any], model: nn.Module) -> Arrays:
        logits = self.merge(model(**batch)["logits"], batch)
        true = self.merge(batch["targets"][0], batch) > 0
        try:
            placed = place_steps(logits)
        except ValueError as error:
            raise ValueError(
                f"video {item_name(batch['video_id'][0])} of task {batch['task'][0]}: {error}"
            ) from error
        return {
            "Y_pred": [placed],
            "Y_true": [true.numpy().astype("uint8")],
            "tasks": list(batch["task"]),
            "ids": [item_name(video_id) for video_id in batch["video_id"]],
        }
