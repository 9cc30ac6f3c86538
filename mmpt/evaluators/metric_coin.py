"""Labelling every second of a video with its step (COIN). Label 0 is background."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmpt.evaluators.metric import Metric, Outcome, named, typical
from mmpt.evaluators.plots import plot_timeline
from mmpt.registry import METRICS

BACKGROUND = 0
DRAWN_LABELS = 30


@METRICS.register()
class COINActionSegmentationMetric(Metric):
    """Share of seconds labelled right, over all videos together (`frame_acc`, the published number).

    Beside it stand the mean over videos, the share over seconds that show a step, and the same numbers for a model that says "background"
    everywhere: on COIN that trivial model reaches about what was published for zero-shot labelling.
    """

    best_metric = "frame_acc"

    def evaluate(self, Y_pred, Y_true, lengths=None, ids=None, **_) -> Outcome:
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
                f"{len(pred)} predictions and {len(true)} labels for videos of {lengths.sum()} s, shortest {lengths.min()} s; "
                "expected one of each per second, and no empty video."
            )
        video = np.repeat(np.arange(len(lengths)), lengths)
        values = _accuracies(pred == true, true, video)
        correct = np.bincount(video, pred == true)
        intervals = {}
        if self.config.bootstrap:
            intervals["frame_acc"] = self.interval(np.arange(len(lengths)), lambda i: correct[i].sum(-1) / lengths[i].sum(-1))
        return Outcome(
            values,
            self.best_metric,
            intervals,
            {"all background": _accuracies(true == BACKGROUND, true, video)},
            {"videos": len(lengths), "seconds": len(true), "labels in use": len(np.unique(true))},
            {"hits": correct / lengths, **named(ids)},
        )

    def plot(self, folder: Path, outcome: Outcome, Y_pred, Y_true, lengths=None, ids=None, **_) -> list[Path]:
        """The timeline of the video with the middle accuracy."""
        video = typical(outcome.per_query["hits"])
        end = len(Y_true) if lengths is None else int(np.cumsum(lengths)[video])
        seconds = slice(0 if lengths is None else end - lengths[video], end)
        pred, true = np.asarray(Y_pred)[seconds], np.asarray(Y_true)[seconds]
        shown = dict.fromkeys([*true.tolist(), *pred.tolist()])  # true labels first, in order of appearance
        labels = np.array([label for label in shown if label != BACKGROUND][:DRAWN_LABELS], dtype=true.dtype)
        title = "" if ids is None else str(ids[video])
        return [plot_timeline(folder / "timeline.png", true[:, None] == labels, pred[:, None] == labels, list(map(str, labels)), title)]


def _accuracies(right: np.ndarray, true: np.ndarray, video: np.ndarray) -> dict[str, float]:
    shown = true != BACKGROUND
    values = {"frame_acc": float(right.mean()), "video_acc": float((np.bincount(video, right) / np.bincount(video)).mean())}
    return values | ({"step_acc": float(right[shown].mean())} if shown.any() else {})
