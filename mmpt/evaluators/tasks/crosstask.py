"""Finding the steps of a task in a video (CrossTask). One video per batch.

Letters: T seconds of the video, K steps of its task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmpt.evaluators.bootstrap import PooledMean
from mmpt.evaluators.metric import WINDOW_SETTINGS, Metric, named, typical
from mmpt.evaluators.plots import plot_timeline
from mmpt.evaluators.predictor import Arrays, WindowPredictor, item_name
from mmpt.evaluators.result import Result
from mmpt.evaluators.spans import aligned_by_best, calibrated_rows
from mmpt.ops.alignment import assign_steps
from mmpt.registry import METRICS, PREDICTORS


@PREDICTORS.register()
class CrossTaskPredictor(WindowPredictor):
    """`Y_pred`, `Y_true` and `logits`, one (T, K) array per video, its task, and the task's `steps`, one a
    line."""

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
            "logits": [logits.float().cpu().numpy()],
            "tasks": list(batch["task"]),
            "steps": ["\n".join(names) for names in batch["step_names"]],
            "ids": [item_name(video_id) for video_id in batch["video_id"]],
        }


def place_steps(logits: Tensor) -> np.ndarray:
    """Put every step on one second, in order, at the highest joint probability; (T, K) logits -> (T, K) of 0
    and 1.

    Raises:
        ValueError: fewer seconds than steps.
    """
    return assign_steps(-torch.log_softmax(torch.as_tensor(logits), dim=-1)).numpy().astype(np.uint8)


@METRICS.register()
class CrossTaskMetric(Metric):
    """Recall: of the steps annotated in a task's videos, the share whose predicted second lies inside them;
    mean over tasks.

    Beside it stands the recall of steps spread evenly over the video, which needs no model. Tasks without any
    annotated step are left out and counted. calibrated: spans of seconds that hold all of a step at a
    promised coverage, and which steps are shown at a promised false discovery, see `mmpt.evaluators.spans`.
    """

    best_metric = "recall"
    published_settings = WINDOW_SETTINGS | {"dataset.n_train": (30,)}

    def evaluate(
        self,
        tasks: Sequence[str],
        Y_pred: Sequence[np.ndarray],
        Y_true: Sequence[np.ndarray],
        logits: Sequence[np.ndarray] | None = None,
        ids=None,
        **_,
    ) -> Result:
        """Score a run.

        Args:
            tasks: (videos) task of each video.
            Y_pred: (videos) of (T, K) with one 1 per step.
            Y_true: (videos) of (T, K), 1 on the seconds of a step.
            logits: (videos) of (T, K) behind the predictions; None: no calibrated rows.
            ids: (videos).
        """
        if not len(tasks) == len(Y_pred) == len(Y_true):
            raise ValueError(
                f"{len(tasks)} tasks, {len(Y_pred)} predictions, {len(Y_true)} labels; expected one of "
                "each per video."
            )
        found = np.array([_found(pred, true) for pred, true in zip(Y_pred, Y_true, strict=True)])
        even = np.array([_found(_evenly(*np.shape(true)), true) for true in Y_true])
        annotated = np.array([(np.asarray(true) > 0).any(0).sum() for true in Y_true])
        names = np.unique(np.asarray(tasks, dtype=str))
        recall = PooledMean(found / np.maximum(annotated, 1), annotated, tasks)
        of_even = PooledMean(even / np.maximum(annotated, 1), annotated, tasks)
        everyone = np.arange(len(found))
        of_tasks = recall.per_group(everyone)
        kept = ~np.isnan(of_tasks)
        if not kept.any():
            raise ValueError("no video has an annotated step; look at dataset.annotation_path.")
        of_spans: dict[str, float] = {}
        facts: dict[str, str] = {}
        if logits is not None:
            videos = zip(logits, Y_pred, Y_true, strict=True)
            aligned = [
                aligned_by_best(str(n), scores.T, _spans(true), np.asarray(pred, dtype=np.float64).T)
                for n, (scores, pred, true) in enumerate(videos)
            ]
            of_spans, facts = calibrated_rows(aligned, "seconds")
        return Result(
            {"recall": float(recall(everyone))}
            | of_spans
            | {f"{names[t]}-recall": float(of_tasks[t]) for t in np.flatnonzero(kept)},
            self.best_metric,
            self.intervals({"recall": (everyone, recall)}),
            {"evenly spread": {"recall": float(of_even(everyone))}},
            {
                "videos": len(found),
                "tasks": int(kept.sum()),
                "tasks without annotated steps": int((~kept).sum()),
                **facts,
            },
            {
                "recall": found / np.maximum(annotated, 1),
                "weight": annotated,
                "group": np.asarray(tasks, dtype=str),
                **named(ids),
            },
        )

    def plot(
        self, folder: Path, result: Result, Y_pred, Y_true, tasks, ids=None, steps=None, **_
    ) -> list[Path]:
        """The timeline of the video with the middle recall."""
        video = typical(result.per_query["recall"])
        true, pred = np.asarray(Y_true[video]) > 0, np.asarray(Y_pred[video]) > 0
        title = f"task {tasks[video]}" + ("" if ids is None else f", video {ids[video]}")
        numbers = [f"step {k + 1}" for k in range(true.shape[1])]
        names = numbers if steps is None else str(steps[video]).split("\n")
        return [plot_timeline(folder / "timeline.png", true, pred, names, title)]


def _found(pred: np.ndarray, true: np.ndarray) -> int:
    """Predicted seconds that lie in their step."""
    return int(((np.asarray(pred) > 0) & (np.asarray(true) > 0)).sum())


def _spans(true: np.ndarray) -> np.ndarray:
    """(T, K) labels -> (K, 2) from the first second of a step to the end of its last, NaN without any."""
    labels = np.asarray(true) > 0
    ends = np.stack([labels.argmax(0), len(labels) - labels[::-1].argmax(0)], axis=1)
    return np.where(labels.any(0)[:, None], ends, np.nan)


def _evenly(n_seconds: int, n_steps: int) -> np.ndarray:
    """Step k in the middle of the k-th of K equal parts."""
    placed = np.zeros((n_seconds, n_steps), dtype=np.uint8)
    steps = np.arange(n_steps)
    placed[((steps + 0.5) * n_seconds / n_steps).astype(int), steps] = 1
    return placed
