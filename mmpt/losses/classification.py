"""Losses on logits and targets of downstream tasks, and two for dry runs."""

from __future__ import annotations

from dataclasses import dataclass

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


class _LogitLoss(Loss):
    """A function of `logits` and `targets`; a leading dimension of 1 that the targets alone have is
    dropped."""

    def value(self, logits: Tensor, targets: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, *, logits: Tensor, targets: Tensor, **batch) -> Tensor:
        loss = self.value(
            full_precision(logits), targets.squeeze(0) if targets.dim() > logits.dim() else targets
        )
        self.record(loss=loss)
        return loss


@LOSSES.register()
class CrossEntropy(_LogitLoss):
    """Pulls the logits (..., C) to class indices (...); -100 is ignored, and a batch of nothing else gives
    0."""

    def value(self, logits: Tensor, targets: Tensor) -> Tensor:
        return mean_cross_entropy(logits.flatten(0, -2), targets.flatten())


@LOSSES.register()
class DummyLoss(CrossEntropy):
    """CrossEntropy under the name that dry-run configs use."""


@LOSSES.register()
class ArgmaxCrossEntropy(_LogitLoss):
    """Pulls the logits (P, C) to the highest-scoring class of soft targets (P, C)."""

    def value(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits, targets.argmax(dim=1))


@LOSSES.register()
class BCE(_LogitLoss):
    """Pulls each logit to its own 0/1 target."""

    def value(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype))


@LOSSES.register()
class MSE(_LogitLoss):
    """Mean squared difference."""

    def value(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(logits, full_precision(targets))


@LOSSES.register()
class L1(_LogitLoss):
    """Mean absolute difference."""

    def value(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.l1_loss(logits, full_precision(targets))


@LOSSES.register()
class SmoothL1(_LogitLoss):
    """Mean of the squared difference below 1 and the absolute one above."""

    def value(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.smooth_l1_loss(logits, full_precision(targets))


@dataclass(frozen=True, kw_only=True)
class DummyK400Config(LossConfig):
    """Random labels."""

    seed: int = option(0, "seed of the random labels")


@LOSSES.register()
class DummyK400Loss(Loss):
    """Cross entropy of logits (..., at least 400) against random classes: for measuring speed, nothing is
    learned."""

    Config = DummyK400Config

    def __init__(self, config=None):
        super().__init__(config)
        self.generator = torch.Generator().manual_seed(self.config.seed)

    def forward(self, *, logits: Tensor, **batch) -> Tensor:
        logits = full_precision(logits).flatten(0, -2)
        loss = F.cross_entropy(
            logits,
            torch.randint(400, (len(logits),), generator=self.generator).to(logits.device, non_blocking=True),
        )
        self.record(loss=loss)
        return loss
