"""Labelling every second of a video with its step (COIN). Label 0 is background."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmpt.evaluators.bootstrap import PooledMean
from mmpt.evaluators.metric import Metric, named, typical
from mmpt.evaluators.plots import plot_timeline
from mmpt.evaluators.result import Result
from mmpt.registry import METRICS

BACKGROUND = 0
DRAWN_LABELS = 30


@METRICS.register()
class COINActionSegmentationMetric(Metric):
    """Share of seconds labelled right, over all videos together (`frame_acc`, the published number).

    Beside it stand the mean over videos, the share over seconds that show a step, and the same numbers for a
    model that says "background"
    everywhere: on COIN that trivial model reaches about what was published for zero-shot labelling.
    """

    best_metric = "frame_acc"

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
            {name: self.interval(everyone, of) for name, of in of_videos.items()}
            if self.config.bootstrap
            else {},
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

    def plot(self, folder: Path, result: Result, Y_pred, Y_true, lengths=None, ids=None, **_) -> list[Path]:
        """The timeline of the video with the middle accuracy."""
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
                list(map(str, labels)),
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
