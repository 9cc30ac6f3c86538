"""Questions about a video: of several answers the one whose text is closest to the video, or an answer that
the model writes.

Letters: B questions (of written answers: items), N questions of an item, C answers to choose from, T text
columns, Q question columns, D width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from mmpt.evaluators.gram_scores import GramKeys
from mmpt.evaluators.metric import Metric
from mmpt.evaluators.predictor import Arrays, Predictor, check_finite, item_name
from mmpt.evaluators.result import Result
from mmpt.processors.tokens import SpecialIds
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
        sides = (check_finite(outputs[name], batch["video_id"]) for name in ("pooled_video", "pooled_text"))
        pooled_video, pooled_text = sides
        return {
            "choices": choose_answers(pooled_video, pooled_text, n_answers),
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


@PREDICTORS.register()
class AnswerPredictor(Predictor):
    """`written`, the answers of a model that writes about items of several modalities (GRAM), from the last
    of `eval.modalities`; `answers`, the right ones (alternatives as lines), and `questions`.

    `gen_param` holds options of `GRAM.generate`: num_beams (3), length_penalty (1), max_new (as many tokens
    as an answer has columns).
    """

    Config = GramKeys

    def predict(self, batch: Mapping[str, Any], model: nn.Module) -> Arrays:
        if "question_caps" not in batch:
            raise ValueError(
                f"{self.config.source}: no questions; rows of dataset.test_path need question and answer."
            )
        special, options = SpecialIds.of(self.tokenizer), dict(self.config.gen_param or {})
        caps = batch["caps"][:, 0]
        asked = torch.tensor(
            [[bool(text) for text in texts] for texts in batch["questions"]], device=caps.device
        )
        skipped = ("caps", "cmasks", "question_caps", "question_cmasks")
        items = model.encode(**{name: x for name, x in batch.items() if name not in skipped}, caps=caps)
        # of [CLS] [SEP] words [SEP] the model reads [CLS] words [SEP], then writes behind the [CLS] of the
        # answer
        question, mask = (
            _without_second(batch[name][asked]) for name in ("question_caps", "question_cmasks")
        )
        ids = model.generate(
            items.repeated(asked.sum(1)),
            self.config.eval.modalities[-1],
            torch.cat([question, question[:, :1]], dim=1),
            special.mask,
            special.sep,
            question_mask=mask,
            **{"max_new": self.config.dataset.answer_len - 1, "length_penalty": 1.0, **options},
        )
        pairs = [
            (name, question, answers)
            for name, questions, right in zip(
                batch["video_id"], batch["questions"], batch["answers"], strict=True
            )
            for question, answers in zip(questions, right, strict=True)
            if question
        ]
        return {
            "written": [text.strip() for text in self.texts(ids)],
            "answers": ["\n".join(answers) for _, _, answers in pairs],
            "questions": [question for _, question, _ in pairs],
            "ids": [item_name(name) for name, _, _ in pairs],
        }


def _without_second(packed: Tensor) -> Tensor:
    """(N, Q) -> (N, Q - 1)."""
    return torch.cat([packed[:, :1], packed[:, 2:]], dim=1)


@METRICS.register()
class AnswerMetric(Metric):
    """Share of questions to which exactly a right answer was written."""

    best_metric = "acc"

    def evaluate(self, written, answers, ids=None, **_) -> Result:
        """Score a run.

        Args:
            written: (N) answers of the model.
            answers: (N) right ones, alternatives as lines.
            ids: (N) names of the items.
        """
        if len(written) != len(answers):
            raise ValueError(f"{len(written)} answers written to {len(answers)} questions.")
        right = [str(text) in str(lines).split("\n") for text, lines in zip(written, answers, strict=True)]
        common, count = Counter(str(lines) for lines in answers).most_common(1)[0]
        baselines = {f"always {common.splitlines()[0] if common else common!r}": count / len(answers)}
        return self.mean_result(np.array(right), baselines, ids)
