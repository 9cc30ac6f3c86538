"""Few-shot classification: mean accuracy over episodes."""

from __future__ import annotations

import math

import numpy as np

from mmpt.evaluators.metric import Metric, named
from mmpt.evaluators.result import Result
from mmpt.registry import METRICS


@METRICS.register()
class FewShotMetric(Metric):
    """Mean accuracy over episodes with the interval that papers print, 1.96 standard errors of the episodes
    (not a bootstrap)."""

    best_metric = "acc"

    def evaluate(self, accuracy, way, ids=None, **_) -> Result:
        """Score a run.

        Args:
            accuracy: (episodes) share of an episode's queries put into their class.
            way: (episodes) or one number: classes of an episode.
            ids: (episodes).
        """
        accuracy = np.asarray(accuracy, dtype=np.float64)
        mean, half = float(accuracy.mean()), 1.96 * float(accuracy.std()) / math.sqrt(len(accuracy))
        classes = int(np.max(way))
        return Result(
            {"acc": mean},
            self.best_metric,
            {"acc": (mean - half, mean + half)},
            {"chance": {"acc": 1 / classes}},
            {"episodes": len(accuracy), "classes per episode": classes},
            {"acc": accuracy, **named(ids)},
        )
