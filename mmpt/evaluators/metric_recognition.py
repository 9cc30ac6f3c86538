"""Action recognition by class scores over the three splits of UCF101 or HMDB51."""

from __future__ import annotations

import numpy as np
import torch

from mmpt.evaluators.metric import Metric, Outcome, named
from mmpt.evaluators.ranking import ScoreMatrix, chance, count_ranks, statistic
from mmpt.registry import METRICS

TEST = 2  # entry of the split table for a test video


@METRICS.register()
class ActionRecognitionMetric(Metric):
    """Accuracy of the highest class score, and R1, R5, R10 of the right class, per split and averaged over splits."""

    best_metric = "split1-acc"

    def evaluate(self, scores, labels, splits, ids=None, **_) -> Outcome:
        """Score a run.

        Args:
            scores: (N, classes).
            labels: (N) right class.
            splits: (N, splits) 2 where a video is in the split's test part.
            ids: (N) names of the videos.
        """
        scores, labels, splits = np.asarray(scores), np.asarray(labels), np.asarray(splits)
        counts = count_ranks(ScoreMatrix(torch.as_tensor(scores)), labels)
        right, ranks = scores.argmax(1) == labels, counts.ranks(self.config.tie_rule)
        names = {"acc": "mean", "R1": "R1", "R5": "R5", "R10": "R10"}
        per_query = {"acc": right.astype(float), "R1": ranks, "R5": ranks, "R10": ranks}
        values, intervals = {}, {}
        for number, split in enumerate(splits.T, start=1):
            test = split == TEST
            if not test.any():
                raise ValueError(f"split {number} has no test video (entry {TEST}).")
            for name, of in names.items():
                values[f"split{number}-{name}"] = float(statistic(of)(per_query[name][test]))
                if self.config.bootstrap:
                    intervals[f"split{number}-{name}"] = self.interval(per_query[name][test], statistic(of))
        for name in names:
            values[f"mean-{name}"] = float(np.mean([values[f"split{number}-{name}"] for number in range(1, splits.shape[1] + 1)]))
        level = chance(scores.shape[1])
        baselines = {"chance": {"acc": level["R1"], **{name: level[name] for name in ("R1", "R5", "R10")}}}
        facts = {"videos": len(labels), "classes": scores.shape[1], "tied queries": int((counts.tied > 0).sum())}
        return Outcome(values, self.best_metric, intervals, baselines, facts, {"ranks": ranks, **named(ids)})
