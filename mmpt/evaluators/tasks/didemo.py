"""Which moment of a half-minute video a description means (DiDeMo).

A video is six chunks of 5 s; a moment is one chunk or a pair (first, last). Letters: Q descriptions, A
annotators, P moments.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmpt.evaluators.metric import BOOTSTRAP_SEED, CLIP_SETTINGS, Metric, named
from mmpt.evaluators.predictor import Arrays, Predictor, check_finite
from mmpt.evaluators.ranking import statistic
from mmpt.evaluators.result import Result
from mmpt.processors.sets.didemo import CHUNK_S, CHUNKS
from mmpt.registry import METRICS, PREDICTORS

MOMENTS = [(i, i) for i in range(CHUNKS)] + list(itertools.combinations(range(CHUNKS), 2))
AGREEING = 3  # annotators that count: the official evaluation takes the best three of four


def rank_moments(seconds: Tensor, valid: Tensor, text: Tensor) -> np.ndarray:
    """Moments of one video, best first, (P, 2) chunk indices padded with -1; moments without any valid second
    are left out.

    Args:
        seconds: (F, D) video token outputs.
        valid: (F) bool.
        text: (D) pooled description.
    """
    slices = [slice(CHUNK_S * first, CHUNK_S * (last + 1)) for first, last in MOMENTS]
    shown = [index for index, part in enumerate(slices) if valid[part].any()]
    scores = torch.stack(
        [seconds[slices[index]].mean(0) @ text for index in shown]
    )  # the mean runs over padding too, as released
    order = scores.argsort(descending=True, stable=True).tolist()
    ranking = np.full((len(MOMENTS), 2), -1)
    ranking[: len(shown)] = [MOMENTS[shown[place]] for place in order]
    return ranking


def moment_iou(one: tuple[int, int], other: tuple[int, int]) -> float:
    """Overlap over span, in chunks. As in the official script, a gap between the two counts as union."""
    overlap = max(0, min(one[1], other[1]) + 1 - max(one[0], other[0]))
    return overlap / (max(one[1], other[1]) + 1 - min(one[0], other[0]))


@METRICS.register()
class DiDeMoMetric(Metric):
    """Does the annotated moment come first?

    rank1, rank5: share of descriptions whose annotated moments (best three annotators) rank 1, or 5 at most,
        on average; miou: mean overlap of the first moment with the best three annotations. Beside them:
        moments in random order.
    """

    best_metric = "rank1"
    published_settings = CLIP_SETTINGS

    def evaluate(self, rankings, times, ids=None, **_) -> Result:
        """Score a run.

        Args:
            rankings: (Q, P, 2) moments best first, padded with -1.
            times: (Q, A, 2) annotated moments, padded with -1.
            ids: (Q) names of the queries.
        """
        rankings, times = np.asarray(rankings), np.asarray(times)
        if len(rankings) != len(times):
            raise ValueError(f"{len(rankings)} rankings for {len(times)} annotated descriptions.")
        ranks, overlaps = _judge(rankings, times)
        generator = np.random.default_rng(BOOTSTRAP_SEED)
        random_ranks, random_overlaps = _judge(
            np.stack([_shuffled(ranking, generator) for ranking in rankings]), times
        )
        judged = {"rank1": (ranks, "R1"), "rank5": (ranks, "R5"), "miou": (overlaps, "mean")}
        per_query = {"ranks": ranks, "miou": overlaps, **named(ids)}
        baselines = {"random order": _summary(random_ranks, random_overlaps)}
        return Result(
            _summary(ranks, overlaps),
            self.best_metric,
            self.intervals({name: (values, statistic(of)) for name, (values, of) in judged.items()}),
            baselines,
            {"queries": len(times)},
            per_query,
        )


def _summary(ranks: np.ndarray, overlaps: np.ndarray) -> dict[str, float]:
    return {
        "rank1": float((ranks <= 1).mean()),
        "rank5": float((ranks <= 5).mean()),
        "miou": float(overlaps.mean()),
    }


def _judge(rankings: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average rank of the annotated moments, and overlap of the first moment, per description."""
    ranks, overlaps = [], []
    for ranking, annotated in zip(rankings.tolist(), times.tolist(), strict=True):
        annotated = [tuple(moment) for moment in annotated if moment[0] >= 0]
        ranking = [tuple(moment) for moment in ranking if moment[0] >= 0]
        places = sorted(ranking.index(moment) + 1 for moment in annotated if moment in ranking)
        ranks.append(np.mean(places[:AGREEING]) if places else np.inf)
        overlaps.append(
            np.mean(sorted((moment_iou(ranking[0], moment) for moment in annotated), reverse=True)[:AGREEING])
        )
    return np.array(ranks), np.array(overlaps)


def _shuffled(ranking: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    shown = ranking[:, 0] >= 0
    result = ranking.copy()
    result[shown] = generator.permutation(ranking[shown])
    return result


@PREDICTORS.register()
class DiDeMoPredictor(Predictor):
    """`rankings` (descriptions, 21, 2) of moments and `times` (descriptions, annotators, 2) of the
    annotators, both padded with -1."""

    def finish(self, arrays: Arrays, dataset: Any, model: nn.Module) -> Arrays:
        meta = dataset.meta_processor
        asked = arrays.pop("index")
        annotated = [meta.times[index] for index in asked]
        padded = np.full((len(annotated), max(map(len, annotated)), 2), -1)
        for row, of_row in zip(padded, annotated, strict=True):
            row[: len(of_row)] = of_row
        return arrays | {
            "times": padded,
            "ids": [f"{meta[index][0]}_{place}" for place, index in enumerate(asked)],
        }

    def predict(self, batch: Mapping[str, Any], model: nn.Module) -> Arrays:
        outputs = model(**batch)
        n_seconds = batch["vfeats"].shape[1]
        seconds = outputs["video_outputs"][:, 1 : n_seconds + 1].float()  # (B, F, D)
        texts = outputs["pooled_text"].float()
        for vectors in seconds, texts:
            check_finite(vectors, batch["video_id"])
        parts = zip(seconds, batch["vmasks"], texts, strict=True)
        return {"rankings": [rank_moments(*part) for part in parts], "index": batch["idx"].tolist()}
