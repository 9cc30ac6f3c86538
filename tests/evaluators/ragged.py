"""Scores of captions against clips for tests."""

import numpy as np


def ragged(seed=0, background=False):
    """Random scores over five videos of unequal length."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(2, 6, 5)
    cols = rng.integers(4, 12, 5) if background else rows
    return rng.normal(size=(rows.sum(), cols.sum())), rows, cols
