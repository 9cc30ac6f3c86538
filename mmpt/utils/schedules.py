"""Learning-rate schedules of GDT, STiCA and GRAM as plain functions of the epoch or update."""

from __future__ import annotations

import math
from collections.abc import Sequence


def warmup_multistep(
    epoch: int,
    lr: float,
    multiplier: float = 1.0,
    warmup_epochs: int = 0,
    milestones: Sequence[int] = (),
    gamma: float = 0.1,
    legacy_offset: bool = False,
) -> float:
    """Linear warm-up from `lr` to `lr * multiplier`, then a drop by `gamma` at every milestone.

    Args:
        epoch: counted from 0.
        lr: rate of one process.
        multiplier: usually the number of processes; 1 keeps `lr` constant during warm-up.
        warmup_epochs: epochs until the full rate.
        milestones: absolute epochs at which the rate drops.
        gamma: factor of a drop.
        legacy_offset: let every drop come one epoch later, as the released code does.

    Source: Patrick et al., "On Compositions of Transformations in Contrastive Self-Supervised Learning"
        (GDT), ICCV 2021, released code.
    """
    if epoch <= warmup_epochs and warmup_epochs:
        return lr * (1 + (multiplier - 1) * epoch / warmup_epochs)
    reached = epoch - 1 if legacy_offset else epoch
    return lr * multiplier * gamma ** sum(milestone <= reached for milestone in milestones)


def warmup_then(
    update: int,
    lr: float,
    warmup_updates: int = 0,
    start_lr: float = 0.0,
    total_updates: int | None = None,
    final_lr: float = 0.0,
) -> float:
    """Linear warm-up from `start_lr` to `lr`, both reached, then constant, or a half cosine to `final_lr`.

    Args:
        update: counted from 0.
        lr: full rate.
        warmup_updates: updates of the warm-up.
        start_lr: rate of the first update.
        total_updates: end of the cosine; None keeps `lr`.
        final_lr: rate that the cosine approaches.

    Source: Patrick et al., "Space-Time Crop & Attend" (STiCA), ICCV 2021, released code.
    """
    if update < warmup_updates:
        return lr if warmup_updates == 1 else start_lr + (lr - start_lr) * update / (warmup_updates - 1)
    if total_updates is None:
        return lr
    share = min(1.0, (update - warmup_updates) / max(1, total_updates - warmup_updates))
    return final_lr + 0.5 * (lr - final_lr) * (1 + math.cos(math.pi * share))


def warmup_share(
    update: int, lr: float, total_updates: int, warmup_ratio: float = 0.1, decay: str = "linear"
) -> float:
    """Linear warm-up from 0 over a share of the training, then linear to 0, or a cosine of the whole
    training.

    Args:
        update: counted from 1; update 0 has the rate 0.
        lr: full rate.
        total_updates: of the training.
        warmup_ratio: share of the warm-up.
        decay: linear, or cosine: 0.5 (1 + cos(pi x)) at the share x of the training, which at the end of the
            warm-up falls by a step, as released.

    Source: VAST (Chen et al., NeurIPS 2023) and GRAM (ICLR 2025), released code.
    """
    share = update / total_updates
    if share < warmup_ratio:
        return lr * share / warmup_ratio
    if decay == "cosine":
        return lr * 0.5 * (1 + math.cos(math.pi * share))
    return lr * max((share - 1) / (warmup_ratio - 1), 0.0)
