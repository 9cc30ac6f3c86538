"""mmpt's losses as a fairseq criterion, and what of them reaches fairseq's log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.logging import metrics
from torch import Tensor, nn


@register_criterion("mmloss")
class MMCriterion(FairseqCriterion):
    """Calls the task with the (wrapped) model; sample size is 1, so gradients are means over processes and
    accumulated batches."""

    def forward(
        self, model: nn.Module, sample: Mapping[str, Any], reduce: bool = True
    ) -> tuple[Tensor, int, dict[str, Any]]:
        """Returns loss, sample size, and numbers that can be summed over processes."""
        half = self.task.autocast_to
        with torch.autocast("cpu", half, enabled=half is not None):
            step = self.task.mmtask(model, sample)
        log = {
            "loss": step.loss.detach(),
            "ntokens": step.n_clips,
            "nsentences": step.n_clips,
            "sample_size": 1,
            "n_uncaptioned": step.n_uncaptioned,
        }
        terms = (
            dict(step.terms) if step.temperature is None else {**step.terms, "temperature": step.temperature}
        )
        log |= {f"term_{name}": value.detach() for name, value in terms.items()}
        return step.loss, 1, log

    @staticmethod
    def reduce_metrics(logging_outputs: Sequence[Mapping[str, Any]]) -> None:
        """Means over processes and updates; clips without a single word as a share of all."""
        n_batches = sum(log["sample_size"] for log in logging_outputs)
        n_clips = sum(log["nsentences"] for log in logging_outputs)
        metrics.log_scalar(
            "loss", sum(log["loss"] for log in logging_outputs) / n_batches, n_batches, round=4
        )
        for key in logging_outputs[0]:
            if key.startswith("term_"):
                value = sum(log[key] for log in logging_outputs) / n_batches
                metrics.log_scalar(key.removeprefix("term_"), value, n_batches, priority=150, round=4)
        uncaptioned = sum(log["n_uncaptioned"] for log in logging_outputs) / n_clips
        metrics.log_scalar("uncaptioned", uncaptioned, n_clips, priority=160, round=3)
        metrics.log_speed("clips_per_s", n_clips, priority=170, round=0)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """Every entry is a plain sum."""
        return True
