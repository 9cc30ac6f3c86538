"""Action recognition by class scores over the three splits of UCF101 or HMDB51."""

from __future__ import annotations

import numpy as np
import torch

from mmpt.evaluators.metric import Metric, named
from mmpt.evaluators.ranking import ScoreMatrix, chance, count_ranks, statistic
from mmpt.evaluators.result import Result
from mmpt.registry import METRICS

TRAIN, TEST = 1, 2  # entries of the split table


@METRICS.register()
class ActionRecognitionMetric(Metric):
    """Accuracy of the highest class score, and R1, R5, R10 of the right class, per split and averaged over
    splits.

    Rows of the same id are clips of one video: it is judged by the mean of their scores.

    With `neighbour_ranks`, R1 to R50 are those of the nearest training video of the right class among all
    training videos, the protocol of video retrieval (GDT, STiCA).
    """

    best_metric = "split1-acc"

    def evaluate(self, scores, labels, splits, ids=None, neighbour_ranks=None, **_) -> Result:
        """Score a run.

        Args:
            scores: (N, classes), or (splits, N, classes) where each split has its own classifier.
            labels: (N) right class.
            splits: (N, splits) 2 where a video is in the split's test part.
            ids: (N) names of the videos; null: each row is one.
            neighbour_ranks: (splits, N).
        """
        scores, labels, splits = np.asarray(scores), np.asarray(labels), np.asarray(splits)
        if scores.ndim == 2:
            scores = np.broadcast_to(scores, (splits.shape[1], *scores.shape))
        if ids is not None and neighbour_ranks is None:
            scores, labels, splits, ids = mean_over_clips(scores, labels, splits, np.asarray(ids))
        names = {"acc": "mean"} | {
            f"R{k}": f"R{k}" for k in ((1, 5, 10) if neighbour_ranks is None else (1, 5, 10, 20, 50))
        }
        values, intervals, tied, judged_ranks, judged_ids = {}, {}, 0, [], []
        for number, (split, of_split) in enumerate(zip(splits.T, scores, strict=True), start=1):
            test = split == TEST
            counts = count_ranks(ScoreMatrix(torch.tensor(of_split)), labels)
            tied += int((counts.tied[test] > 0).sum())
            ranks = (
                counts.ranks(self.config.tie_rule)
                if neighbour_ranks is None
                else np.asarray(neighbour_ranks)[number - 1]
            )
            right = (of_split.argmax(1) == labels).astype(float)
            if not test.any():
                raise ValueError(f"split {number} has no test video (entry {TEST}).")
            judged_ranks.append(ranks[test])
            judged_ids += [
                f"split{number} {name}"
                for name in (np.arange(len(labels)) if ids is None else np.asarray(ids))[test]
            ]
            for name, of in names.items():
                judged = (right if name == "acc" else ranks)[test]
                values[f"split{number}-{name}"] = float(statistic(of)(judged))
                if self.config.bootstrap:
                    intervals[f"split{number}-{name}"] = self.interval(judged, statistic(of))
        for name in names:
            values[f"mean-{name}"] = float(
                np.mean([values[f"split{number}-{name}"] for number in range(1, splits.shape[1] + 1)])
            )
        level = chance(scores.shape[2])
        of_chance = {name: level[name] for name in ("R1", "R5", "R10")} if neighbour_ranks is None else {}
        facts = {
            "videos": len(labels),
            "classes": scores.shape[2],
            "splits": splits.shape[1],
            "tied queries": tied,
        }
        baselines = {"chance": {"acc": level["R1"], **of_chance}}
        return Result(
            values,
            self.best_metric,
            intervals,
            baselines,
            facts,
            {"ranks": np.concatenate(judged_ranks), **named(judged_ids)},
        )


def mean_over_clips(
    scores: np.ndarray, labels: np.ndarray, splits: np.ndarray, ids: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Scores (R, V, C), labels (V), splits (V, R) and ids (V) of videos, from those of their clips (R, N, C),
    (N), (N, R), (N).

    Raises:
        ValueError: clips of a video differ in label or split.
    """
    names, first, video = np.unique(ids, return_index=True, return_inverse=True)
    differ = (labels != labels[first][video]) | (splits != splits[first][video]).any(1)
    if differ.any():
        raise ValueError(
            f"clips of video {ids[differ][0]} differ in their label or split; they are averaged as one video."
        )
    total = np.zeros((len(scores), len(names), scores.shape[2]))
    np.add.at(total, (slice(None), video), scores)
    return total / np.bincount(video)[:, None], labels[first], splits[first], names
