"""Random streams: one per item, independent of who draws before or beside it."""

from __future__ import annotations

import random
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

DEFAULT_SEED = 43211


class ItemRandom:
    """The random streams of one item; each is created when first used.

    Args:
        seed: seeds all streams alike, so `ItemRandom(s)` draws what `random.seed(s)`, `torch.manual_seed(s)`
            would have global code draw.
    """

    def __init__(self, seed: int):
        self.seed = int(seed)

    @classmethod
    def for_item(cls, seed: int, epoch: int, index: int) -> ItemRandom:
        """Streams that depend on (seed, epoch, index) alone, hence not on the number of workers."""
        return cls(int(np.random.SeedSequence((seed, epoch, index)).generate_state(1, np.uint64)[0] >> 1))

    @cached_property
    def numpy(self) -> np.random.Generator:
        """Vectorised draws of the default samplers."""
        return np.random.default_rng(self.seed)

    @cached_property
    def python(self) -> random.Random:
        """One draw at a time, the stream of Python's `random`."""
        return random.Random(self.seed)

    @cached_property
    def torch(self) -> torch.Generator:
        """Draws of the masking processors."""
        import torch

        return torch.Generator().manual_seed(self.seed)


def set_seed(seed: int = DEFAULT_SEED) -> None:
    """Seed the global generators of random, numpy and torch (all devices), and make cuDNN deterministic."""
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
