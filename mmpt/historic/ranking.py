"""How the releases rank, where that is known to be wrong (`eval.compat`)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def position_ranks(better: np.ndarray, tied_after: np.ndarray) -> np.ndarray:
    """Ranks from 1 in which the later of equal columns wins, as in a reversed argsort.

    Args:
        better: (N) columns that score higher than the right one.
        tied_after: (N) columns behind it that score the same.
    """
    return 1.0 + better + tied_after


def candidates_alone(scores: Tensor, candidates: Tensor, prob: Tensor) -> Tensor:
    """Re-ranked scores (C, columns) that forget the order of all columns but the candidates (C, k)."""
    return torch.zeros_like(scores).scatter(1, candidates, prob)
