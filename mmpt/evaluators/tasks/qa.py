"""Multiple-choice questions about a video: the answer whose text is closest to the video.

Letters: B questions, C answers to choose from, T text columns, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn

from mmpt.evaluators.metric import Metric
from mmpt.evaluators.predictor import Arrays, Predictor, check_finite, item_name
from mmpt.evaluators.result import Result
from mmpt.registry import METRICS, PREDICTORS


def choose_answers(pooled_video: Tensor, pooled_text: Tensor, n_answers: int) -> Tensor:
    """Index of the best answer to each question, (B,); both inputs (B*C, D), the video repeated for every
    answer."""
    video = pooled_video.view(-1, n_answers, pooled_video.shape[-1])[:, 0]  # (B, D)
    text = pooled_text.view(-1, n_answers, pooled_text.shape[-1])  # (B, C, D)
    return (text @ video[:, :, None]).squeeze(-1).argmax(-1)


@PREDICTORS.register()
class QAPredictor(Predictor):
    """`choices` and `answers`, (questions,) each."""

    def predict(self, batch: Mapping[str, Any], model: nn.Module) -> Arrays:
        n_answers = batch["caps"].shape[1]
        video = {name: batch[name].repeat_interleave(n_answers, 0) for name in ("vfeats", "vmasks")}
        outputs = model(caps=batch["caps"].flatten(0, 1), cmasks=batch["cmasks"].flatten(0, 1), **video)
        pooled = (check_finite(outputs[name], batch["video_id"]) for name in ("pooled_video", "pooled_text"))
        return {
            "choices": choose_answers(*pooled, n_answers),
            "answers": batch["answers"].flatten(),
            "n_answers": [n_answers],
            "ids": [item_name(video_id) for video_id in batch["video_id"]],
        }


@METRICS.register()
class QAMetric(Metric):
    """Share of questions whose chosen answer is the right one."""

    best_metric = "acc"
    published_settings: ClassVar = {"dataset.max_video_len": (16, 32), "dataset.max_len": (96,)}

    def evaluate(self, choices, answers, n_answers: int = 5, ids=None, **_) -> Result:
        """Score a run.

        Args:
            choices: (N) index of the chosen answer.
            answers: (N) index of the right one.
            n_answers: answers per question, for the chance level.
            ids: (N) names of the questions.
        """
        choices, answers = np.asarray(choices).ravel(), np.asarray(answers).ravel()
        if len(choices) != len(answers):
            raise ValueError(f"{len(choices)} choices for {len(answers)} answers.")
        return self.mean_result(choices == answers, {"chance": 1 / int(np.max(n_answers))}, ids)
