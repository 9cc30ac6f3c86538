"""How the releases rank, where that is known to be wrong (`eval.compat`)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def tied_and_first(scores: Tensor, targets: Tensor) -> Tensor:
    """Columns that score as the right one does and that Norton's code places before it, (n) int64.

    It takes the place of the right column in a reversed `numpy.argsort` of the row. That sort is not stable:
    which of many equal scores comes first is up to numpy, and is here left to it.

    Args:
        scores: (n, M) whole rows, finite.
        targets: (n) right columns.
    """
    order = np.argsort(scores.cpu().numpy(), axis=1)[:, ::-1]
    place = torch.as_tensor((order == targets.cpu().numpy()[:, None]).argmax(axis=1), device=scores.device)
    return place - (scores > scores.gather(1, targets[:, None])).sum(1)


def candidates_alone(scores: Tensor, candidates: Tensor, prob: Tensor) -> Tensor:
    """Re-ranked scores (C, columns) that forget the order of all columns but the candidates (C, k)."""
    return torch.zeros_like(scores).scatter(1, candidates, prob)
