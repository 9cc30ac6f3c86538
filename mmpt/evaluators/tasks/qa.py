"""Multiple-choice questions about a video."""

from __future__ import annotations

import numpy as np

from mmpt.evaluators.metric import Metric
from mmpt.evaluators.result import Result
from mmpt.registry import METRICS


@METRICS.register()
class QAMetric(Metric):
    """Share of questions whose chosen answer is the right one."""

    best_metric = "acc"

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
