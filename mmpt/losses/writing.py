"""Losses of models that write about items: captions, and answers to questions.

Both guess masked words from the words before them and from a condition, the tokens of some modalities. They
read `word_logits` of the model, a callable (condition, masked ids, mask, labels, question, its mask) ->
logits of the labelled words, to which `n_labels` says how many there are where the data set counted them.

Shapes: B items, T caption columns, Q question columns, n labelled words of the batch, C vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mmpt.config.conditions import letters_of
from mmpt.losses.classification import mean_cross_entropy
from mmpt.losses.loss import Loss, LossConfig, option
from mmpt.losses.vlm import labelled
from mmpt.registry import LOSSES

VAST = "Chen et al., VAST, NeurIPS 2023, [arXiv 2305.18500](https://arxiv.org/abs/2305.18500)"


@dataclass(frozen=True, kw_only=True)
class WritingConfig(LossConfig):
    """Keys of losses of writing models."""

    conditions: list | None = option(
        None,
        "first letters of the modalities read, such as [tva], or several such choices, whose mean counts",
    )

    def __post_init__(self):
        super().__post_init__()
        if not self.conditions:
            raise ValueError("loss.conditions is empty; name at least one, such as tva.")


class WritingLoss(Loss[WritingConfig]):
    """Mean over the conditions."""

    Config = WritingConfig
    family = "Masked and generated tokens"
    paper = VAST
    cost = "linear in the logits; the text encoder runs once for each condition."
    term = ""

    def over_conditions(
        self, word_logits: Callable[..., Tensor], texts: Callable[[str], tuple[Any, ...]]
    ) -> Tensor:
        """Cross entropy of the labelled words, averaged over words, then over conditions; `texts` gives the
        number of labels (None: not counted), ids, mask, labels and question of a condition."""
        losses = []
        for condition in self.config.conditions or ():
            n_labels, ids, mask, labels, *question = texts(condition)
            counted = {} if n_labels is None else {"n_labels": n_labels}
            logits = word_logits(condition, ids, mask, labels, *question, **counted)
            losses.append(mean_cross_entropy(logits, labelled(labels, logits)))
        loss = sum(losses) / len(losses)
        self.record(**{self.term: loss})
        return loss


@LOSSES.register()
class CaptionLoss(WritingLoss):
    """Pulls the prediction of each masked word of a caption to that word, given the words before it and the
    other modalities.

    Reads `masked_caps` (B, T), `caption_labels` (B, T) with -100 where nothing is masked, `cmasks` (B, T),
    all from the data set (`dataset.mask_captions`). A condition that has captions of its own
    (`dataset.condition_captions`) reads those instead. In GRAM's released code: `loss_cap`.
    """

    term = "caption"
    formula = "CE of masked words given the words before them and a condition"
    from_model = ("word_logits",)

    def forward(
        self,
        *,
        word_logits: Callable[..., Tensor],
        masked_caps: Tensor,
        cmasks: Tensor,
        caption_labels: Tensor,
        labelled: Mapping[str, int] | None = None,
        **batch: Any,
    ) -> Tensor:
        common = {"masked_caps": masked_caps, "cmasks": cmasks, "caption_labels": caption_labels}

        def texts(condition: str) -> tuple[Any, ...]:
            own = f"caption_labels_{letters_of(condition)}"
            n_labels = (labelled or {}).get(own if own in batch else "caption_labels")
            return n_labels, *(batch.get(f"{name}_{letters_of(condition)}", x) for name, x in common.items())

        return self.over_conditions(word_logits, texts)


@LOSSES.register()
class AnswerLoss(WritingLoss):
    """Pulls the prediction of each masked word of an answer to that word, given the question and the other
    modalities.

    Reads `masked_answers`, `answer_cmasks`, `answer_labels` (B, T), `question_caps`, `question_cmasks` (B,
    Q), all from the data set (annotations with `question` and `answer`). In GRAM's released code: `loss_qa`.
    """

    term = "answer"
    formula = "CE of masked words of an answer given the question, the words before them and a condition"
    from_model = ("word_logits",)

    def forward(
        self,
        *,
        word_logits: Callable[..., Tensor],
        masked_answers: Tensor,
        answer_cmasks: Tensor,
        answer_labels: Tensor,
        question_caps: Tensor,
        question_cmasks: Tensor,
        labelled: Mapping[str, int] | None = None,
        **batch: Any,
    ) -> Tensor:
        n_labels = (labelled or {}).get("answer_labels")
        text = n_labels, masked_answers, answer_cmasks, answer_labels, question_caps, question_cmasks
        return self.over_conditions(word_logits, lambda condition: text)
