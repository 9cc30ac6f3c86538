"""Labelling every second of a video with its step (COIN), fine-tuned or zero-shot. Label 0 is background.

One video per batch. Letters: T seconds of the video, W windows, F seconds per window, C labels, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmpt.evaluators.bootstrap import PooledMean
from mmpt.evaluators.metric import WINDOW_SETTINGS, Metric, named, typical
from mmpt.evaluators.plots import plot_timeline
from mmpt.evaluators.predictor import Arrays, WindowPredictor, item_name, text_vectors
from mmpt.evaluators.result import Result
from mmpt.processors.sets.coin import BACKGROUND
from mmpt.registry import METRICS, PREDICTORS

DRAWN_LABELS = 30  # of a timeline


@PREDICTORS.register()
class COINPredictor(WindowPredictor):
    """`Y_pred` and `Y_true`, labels of the seconds of all videos; `lengths` of the videos; `step_ids` and
    `step_names` of the test set."""

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

    def finish(self, arrays: Arrays, dataset: Any, model: nn.Module) -> Arrays:
        names = {} if dataset is None else dataset.meta_processor.step_names
        return arrays | {"step_ids": list(names), "step_names": list(names.values())}


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

    def begin(self, dataset: Any, model: nn.Module, device: torch.device) -> None:
        names = dataset.meta_processor.step_names
        self.step_vectors = text_vectors(names.values(), dataset, model, device)
        self.threshold = label_threshold(self.step_vectors)
        self.step_ids = torch.tensor([0, *names])  # label k of `label_seconds` -> id of the k-th step

    def predict(self, batch: Mapping[str, Any], model: nn.Module) -> Arrays:
        vfeats, vmasks, caps, cmasks = (batch[name][0] for name in ("vfeats", "vmasks", "caps", "cmasks"))
        seconds = model.forward_video(vfeats, vmasks, caps, cmasks).outputs[
            :, 1 : vfeats.shape[1] + 1
        ]  # (W, F, D)
        scores = self.merge(seconds.float() @ self.step_vectors.T, batch)
        return self.labels(self.step_ids[label_seconds(scores, self.threshold)], batch)


@METRICS.register()
class COINActionSegmentationMetric(Metric):
    """Share of seconds labelled right, over all videos together (`frame_acc`, the published number).

    Beside it stand the mean over videos, the share over seconds that show a step, and the same numbers for a
    model that says "background" everywhere: on COIN that trivial model reaches about what was published for
    zero-shot labelling.
    """

    best_metric = "frame_acc"
    published_settings = WINDOW_SETTINGS

    def evaluate(self, Y_pred, Y_true, lengths=None, ids=None, **_) -> Result:
        """Score a run.

        Args:
            Y_pred: (seconds of all videos) predicted labels.
            Y_true: (seconds of all videos) true labels.
            lengths: (videos) seconds of each video; None: one video.
            ids: (videos).
        """
        pred, true = np.asarray(Y_pred), np.asarray(Y_true)
        lengths = np.array([len(true)]) if lengths is None else np.asarray(lengths)
        if pred.shape != true.shape or lengths.sum() != len(true) or lengths.min() < 1:
            raise ValueError(
                f"{len(pred)} predictions and {len(true)} labels for videos of {lengths.sum()} s, "
                f"shortest {lengths.min()} s; "
                "expected one of each per second, and no empty video."
            )
        video = np.repeat(np.arange(len(lengths)), lengths)
        of_videos = _accuracies(pred == true, true, video)
        everyone = np.arange(len(lengths))
        return Result(
            {name: float(of(everyone)) for name, of in of_videos.items()},
            self.best_metric,
            self.intervals({name: (everyone, of) for name, of in of_videos.items()}),
            {
                "all background": {
                    name: float(of(everyone))
                    for name, of in _accuracies(true == BACKGROUND, true, video).items()
                }
            },
            {
                "videos": len(lengths),
                "seconds": len(true),
                "labels in use": len(np.unique(true)),
                "labels predicted": len(np.unique(pred)),
                "predicted as background": f"{(pred == BACKGROUND).mean():.1%} of the seconds",
            },
            {"frame_acc": np.bincount(video, pred == true) / lengths, "weight": lengths, **named(ids)},
        )

    def plot(
        self,
        folder: Path,
        result: Result,
        Y_pred,
        Y_true,
        lengths=None,
        ids=None,
        step_ids=(),
        step_names=(),
        **_,
    ) -> list[Path]:
        """The timeline of the video with the middle accuracy."""
        names = dict(zip(np.asarray(step_ids).tolist(), step_names, strict=True))
        video = typical(result.per_query["frame_acc"])
        end = len(Y_true) if lengths is None else int(np.cumsum(lengths)[video])
        seconds = slice(0 if lengths is None else end - lengths[video], end)
        pred, true = np.asarray(Y_pred)[seconds], np.asarray(Y_true)[seconds]
        shown = dict.fromkeys([*true.tolist(), *pred.tolist()])  # true labels first, in order of appearance
        labels = np.array([label for label in shown if label != BACKGROUND][:DRAWN_LABELS], dtype=true.dtype)
        title = "" if ids is None else str(ids[video])
        return [
            plot_timeline(
                folder / "timeline.png",
                true[:, None] == labels,
                pred[:, None] == labels,
                [str(names.get(label, f"step {label}")) for label in labels.tolist()],
                title,
            )
        ]


def _accuracies(right: np.ndarray, true: np.ndarray, video: np.ndarray) -> dict[str, PooledMean]:
    """The three shares, as functions of the videos that are counted."""
    seconds, step_seconds = np.bincount(video), np.bincount(video, true != BACKGROUND)
    correct = np.bincount(video, right) / seconds
    of_videos = {"frame_acc": PooledMean(correct, seconds), "video_acc": PooledMean(correct)}
    if step_seconds.any():
        of_steps = np.bincount(video, right & (true != BACKGROUND)) / np.maximum(step_seconds, 1)
        of_videos["step_acc"] = PooledMean(of_steps, step_seconds)
    return of_videos
