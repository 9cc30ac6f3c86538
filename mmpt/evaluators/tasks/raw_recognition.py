"""Action recognition on frames: clips of a video are judged together. By a trained classifier, by a linear
probe, by nearest neighbours, and from few labelled videos.

Letters: B videos' clips in a batch, K crops of a clip, V videos, C classes, D width, R splits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn.functional import normalize

from mmpt.config.fields import Section, option
from mmpt.evaluators.metric import Metric
from mmpt.evaluators.predictor import Arrays, Predictor, check_finite
from mmpt.evaluators.result import Result
from mmpt.evaluators.tasks.recognition import (
    RecognitionNNPredictor,
    RecognitionPredictor,
    RecognitionProbePredictor,
)
from mmpt.processors.sets.recognition import TEST, TRAIN
from mmpt.registry import METRICS, PREDICTORS
from mmpt.utils.optional import optional_import

SVM_COSTS = (0.01, 0.1, 1.0, 10.0, 100.0)


@PREDICTORS.register()
class ClipRecognitionPredictor(Predictor):
    """`scores` (B, C) of the clips, the mean of the logits of their crops, as published; a metric then
    takes the mean over the clips of a video."""

    def predict(self, batch: Mapping[str, Any], model: nn.Module) -> Arrays:
        video = batch["video"]  # (B, K, 3, T, S, S)
        logits = model(video=video.flatten(0, 1))["logits"].float().unflatten(0, video.shape[:2]).mean(1)
        scores = check_finite(logits, batch["video_id"])
        return {
            "scores": scores,
            "labels": batch["targets"],
            "splits": batch["splits"],
            "ids": list(batch["video_id"]),
        }

    def finish(self, arrays: Arrays, dataset: Any, model: nn.Module) -> Arrays:
        return arrays | {"folds": np.array(dataset.meta_processor.folds)}


class VideoVectors(RecognitionPredictor):
    """One vector per video: unit vectors of its clips and crops before the head, averaged, of unit length
    again."""

    def predict(self, batch: Mapping[str, Any], model: nn.Module) -> Arrays:
        video = batch["video"]  # (B, K, 3, T, S, S)
        vectors = normalize(model.video_vectors(video.flatten(0, 1)).float(), dim=-1)
        return {
            "vectors": check_finite(vectors.unflatten(0, video.shape[:2]).mean(1), batch["video_id"]),
            "labels": batch["targets"],
            "splits": batch["splits"],
            "ids": list(batch["video_id"]),
        }

    def per_video(self, arrays: Arrays) -> Arrays:
        """Means over the clips of a video."""
        names, first, video = np.unique(arrays["ids"], return_index=True, return_inverse=True)
        total = np.zeros((len(names), arrays["vectors"].shape[1]), arrays["vectors"].dtype)
        np.add.at(total, video, arrays["vectors"])
        of_video = {key: arrays[key][first] for key in ("labels", "splits")}
        return of_video | {
            "vectors": total / np.bincount(video)[:, None].astype(total.dtype),
            "ids": list(names),
        }


@PREDICTORS.register()
class ClipProbePredictor(VideoVectors, RecognitionProbePredictor):
    """A linear classifier on frozen vectors of videos, fitted to each split's training videos."""


@PREDICTORS.register()
class ClipNNPredictor(VideoVectors, RecognitionNNPredictor):
    """Video retrieval: test videos ask for training videos of their class, by the cosine of frozen
    vectors."""


@PREDICTORS.register()
class ClipFewShotPredictor(VideoVectors):
    """Recognition from few labelled videos: a linear SVM on frozen vectors of `eval.shots` training videos
    of each class, drawn `eval.draws` times; its cost is chosen on those videos.

    `hits` (draws, shots, test videos) of split `dataset.fold`, and `shots`.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Section):
        """How many videos, and how often they are drawn."""

        shots: list = option([1, 5, 20], "few-shot recognition: training videos of each class")
        draws: int = option(5, "few-shot recognition: how often they are drawn", least=1)

    def scores(self, vectors: Tensor, labels: Tensor, splits: np.ndarray, n_classes: int) -> np.ndarray:
        """(draws, shots, test videos) bool, in place of class scores."""
        shots, draws = self.config.eval.shots, self.config.eval.draws
        tags = splits[:, self.folds.index(self.config.dataset.fold)]
        train, test = np.flatnonzero(tags == TRAIN), np.flatnonzero(tags == TEST)
        x, y = vectors.numpy(), labels.numpy()
        few = np.bincount(y[train], minlength=n_classes).min()
        if max(shots) > few or min(shots) < 1:
            raise ValueError(f"eval.shots={shots}: a class has {few} training videos; expected 1 to {few}.")
        hits = np.zeros((draws, len(shots), len(test)), bool)
        for draw in range(draws):
            rng = np.random.default_rng((self.config.trainer.seed or 0, draw))
            order = rng.permutation(train)
            for column, n in enumerate(shots):
                chosen = np.concatenate([order[y[order] == label][:n] for label in range(n_classes)])
                hits[draw, column] = linear_svm(x[chosen], y[chosen], n).predict(x[test]) == y[test]
        return hits

    def finish(self, arrays: Arrays, dataset: Any, model: nn.Module) -> Arrays:
        self.folds = list(dataset.meta_processor.folds)
        return {
            "hits": super().finish(arrays, dataset, model)["scores"],
            "shots": np.array(self.config.eval.shots),
            "classes": len(dataset.meta_processor.class_names),
        }


def linear_svm(vectors: np.ndarray, labels: np.ndarray, n_each: int) -> Any:
    """A fitted linear SVM; where there are two videos of each class or more, its cost is the best of
    cross-validation among them."""
    svm = optional_import("sklearn.svm", extra="train").LinearSVC()
    if n_each > 1:
        selection = optional_import("sklearn.model_selection", extra="train")
        svm = selection.GridSearchCV(svm, {"C": SVM_COSTS}, cv=min(n_each, 3))
    return svm.fit(vectors, labels)


@METRICS.register()
class ClipFewShotMetric(Metric):
    """Accuracy from n labelled videos of each class, `<n>shot-acc`: the mean over draws, and
    `<n>shot-std`, their standard deviation."""

    best_metric = "acc"

    def evaluate(self, hits, shots, classes, **_) -> Result:
        """Score a run.

        Args:
            hits: (draws, shots, test videos) bool.
            shots: numbers of labelled videos of a class.
            classes: C.
        """
        accuracy = np.asarray(hits, float).mean(2)  # (draws, shots)
        values: dict[str, float] = {}
        for n, of_draws in zip(np.asarray(shots).tolist(), accuracy.T, strict=True):
            values |= {f"{n}shot-acc": float(of_draws.mean()), f"{n}shot-std": float(of_draws.std())}
        chance = {name: 1 / int(classes) for name in values if name.endswith("acc")}
        facts = {"draws": len(accuracy), "test videos": np.shape(hits)[2], "classes": int(classes)}
        return Result(values, f"{np.asarray(shots).tolist()[-1]}shot-acc", {}, {"chance": chance}, facts)
