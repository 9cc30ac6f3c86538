"""Losses on logits and targets of downstream tasks, and two for dry runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmpt.losses.loss import Loss, LossConfig, option
from mmpt.ops.precision import full_precision
from mmpt.registry import LOSSES

IGNORED = -100  # target of positions that carry no label


def mean_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross entropy of logits (P, C) over the targets (P,) that are not -100; 0, with gradient 0, where
    there are none."""
    total = F.cross_entropy(full_precision(logits), targets, ignore_index=IGNORED, reduction="sum")
    return total / (targets != IGNORED).sum().clamp(min=1)


class _LogitLoss(Loss[LossConfig]):
    """A function of `logits` and `targets`; a leading dimension of 1 that the targets alone have is
    dropped."""

    family = "Labels"
    paper = "textbook"
    cost = "linear in the logits."
    from_model = ("logits",)

    def value(self, logits: Tensor, targets: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, *, logits: Tensor, targets: Tensor, **batch: Any) -> Tensor:
        loss = self.value(
            full_precision(logits), targets.squeeze(0) if targets.dim() > logits.dim() else targets
        )
        self.record(loss=loss)
        return loss


@LOSSES.register()
class CrossEntropy(_LogitLoss):
    """Pulls the logits (..., C) to class indices (...); -100 is ignored, and a batch of nothing else gives
    0."""

    formula = "CE(logits, targets)"

    def value(self, logits: Tensor, targets: Tensor) -> Tensor:
        return mean_cross_entropy(logits.flatten(0, -2), targets.flatten())


@LOSSES.register()
class DummyLoss(CrossEntropy):
    """CrossEntropy under the name that dry-run configs use."""


@LOSSES.register()
class ArgmaxCrossEntropy(_LogitLoss):
    """Pulls the logits (P, C) to the highest-scoring class of soft targets (P, C)."""

    formula = "CE(logits, argmax targets)"

    def value(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits, targets.argmax(dim=1))


@LOSSES.register()
class BCE(_LogitLoss):
    """Pulls each logit to its own 0/1 target."""

    formula = "mean of -[y log p + (1 - y) log(1 - p)],  p = sigmoid(logit)"

    def value(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype))


@LOSSES.register()
class MSE(_LogitLoss):
    """Mean squared difference."""

    formula = "mean (logits - targets)^2"

    def value(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(logits, full_precision(targets))


@LOSSES.register()
class L1(_LogitLoss):
    """Mean absolute difference."""

    formula = "mean |logits - targets|"

    def value(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.l1_loss(logits, full_precision(targets))


@LOSSES.register()
class SmoothL1(_LogitLoss):
    """Mean of the squared difference below 1 and the absolute one above."""

    formula = "mean of d^2 / 2 where |d| < 1, |d| - 1/2 elsewhere"

    def value(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.smooth_l1_loss(logits, full_precision(targets))


@dataclass(frozen=True, kw_only=True)
class DummyK400Config(LossConfig):
    """Random labels."""

    seed: int = option(0, "seed of the random labels")


@LOSSES.register()
class DummyK400Loss(Loss[DummyK400Config]):
    """Cross entropy of logits (..., at least 400) against random classes: for measuring speed, nothing is
    learned."""

    Config = DummyK400Config
    family = "Labels"
    formula = "CE(logits, random classes)"
    cost = "linear in the logits."

    def __init__(self, config: Mapping[str, Any] | DummyK400Config | None = None, **keys: Any):
        super().__init__(config, **keys)
        self.generator = torch.Generator().manual_seed(self.config.seed)

    def forward(self, *, logits: Tensor, **batch: Any) -> Tensor:
        logits = full_precision(logits).flatten(0, -2)
        loss = F.cross_entropy(
            logits,
            torch.randint(400, (len(logits),), generator=self.generator).to(logits.device, non_blocking=True),
        )
        self.record(loss=loss)
        return loss
