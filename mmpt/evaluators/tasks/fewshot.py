"""Few-shot classification by aligning frame sequences: mean accuracy over episodes, one episode per batch.

Letters: S supports, Q queries, F frames, D width, C classes of the episode.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn.functional import one_hot

from mmpt.evaluators.metric import Metric, named
from mmpt.evaluators.predictor import Arrays, Predictor, check_finite
from mmpt.evaluators.result import Result
from mmpt.ops.alignment import cosine_cost, otam
from mmpt.registry import METRICS, PREDICTORS

SMOOTHING = 0.1  # as in training: FewShotAlignmentLoss


def episode_scores(support: Tensor, support_labels: Tensor, query: Tensor, way: int) -> Tensor:
    """(Q, C) minus the mean OTAM distance, both directions, of each query (Q, F, D) to the supports (S, F, D)
    of each class."""
    distance = otam(cosine_cost(query[:, None], support[None]), SMOOTHING, both=True)  # (Q, S)
    member = one_hot(support_labels, way).to(distance.dtype)
    return -(distance @ member) / member.sum(0)


@PREDICTORS.register()
class FewShotPredictor(Predictor):
    """`accuracy` of each episode, and its number of classes `way`."""

    def predict(self, batch: Mapping[str, Any], model: nn.Module) -> Arrays:
        episode = {name: batch[name][0] for name in ("support", "support_labels", "query", "query_labels")}
        outputs = model(support=episode["support"], query=episode["query"])
        scores = episode_scores(
            outputs["support"].float(),
            episode["support_labels"],
            outputs["query"].float(),
            self.config.dataset.way,
        )
        right = check_finite(scores, batch["video_id"]).argmax(-1) == episode["query_labels"]
        return {
            "accuracy": right.float().mean()[None],
            "ids": batch["idx"].tolist(),
            "way": [self.config.dataset.way],
        }


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
