"""Temporal probes: batches with one thing taken away. A test whose number survives a probe does not need what
the probe took.

Letters: B clips, F seconds, D width, T text columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from mmpt.ops.distributed import rank, world_size

Draw: TypeAlias = torch.Generator


def one_second(vfeats: Tensor, vmasks: Tensor, generator: Draw) -> tuple[Tensor, Tensor]:
    """The middle second of every clip alone."""
    middle = (vmasks.sum(1) - 1).clamp_min(0) // 2
    kept = torch.zeros_like(vfeats)
    kept[:, 0] = vfeats[torch.arange(len(vfeats)), middle]
    return kept, vmasks & (torch.arange(vmasks.shape[1]) == 0)


def reversed_seconds(vfeats: Tensor, vmasks: Tensor, generator: Draw) -> tuple[Tensor, Tensor]:
    """Last second first."""
    return _reordered(vfeats, vmasks, -torch.arange(vmasks.shape[1]).expand(vmasks.shape)), vmasks


def shuffled_seconds(vfeats: Tensor, vmasks: Tensor, generator: Draw) -> tuple[Tensor, Tensor]:
    """The seconds of every clip in a drawn order."""
    return _reordered(vfeats, vmasks, torch.rand(vmasks.shape, generator=generator)), vmasks


def bag_of_words(caps: Tensor, cmasks: Tensor, generator: Draw) -> tuple[Tensor, Tensor]:
    """The word pieces of every caption `[CLS] [SEP] words [SEP] [PAD] ..` in a drawn order."""
    columns = torch.arange(caps.shape[1])
    last = cmasks.sum(1, keepdim=True) - 1
    words = (columns >= 2) & (columns < last)
    place = torch.where(words, torch.rand(caps.shape, generator=generator), 0.0)
    place = torch.where(columns >= last, 2.0, torch.where(columns < 2, -1.0, place))
    return caps.gather(1, place.argsort(dim=1, stable=True)), cmasks


def _reordered(vfeats: Tensor, vmasks: Tensor, place: Tensor) -> Tensor:
    """Seconds by ascending `place` (B, F); padding stays last."""
    order = torch.where(vmasks, place.float(), torch.inf).argsort(dim=1, stable=True)
    return vfeats.gather(1, order[..., None].expand_as(vfeats))


Change = Callable[[Tensor, Tensor, Draw], tuple[Tensor, Tensor]]
PROBES: dict[str, tuple[tuple[str, str], Change]] = {
    "one_second": (("vfeats", "vmasks"), one_second),
    "shuffled": (("vfeats", "vmasks"), shuffled_seconds),
    "reversed": (("vfeats", "vmasks"), reversed_seconds),
    "bag_of_words": (("caps", "cmasks"), bag_of_words),
}


class Probed:
    """A loader whose batches of clips (`vfeats` (B, F, D)) a probe has changed.

    The draws of a batch come from the seed and its number in the whole test set, so that they are the same on
    any number of processes.

    Args:
        name: of `PROBES`.
        loader: batches, those of this rank where they are dealt out in turns.
        seed: of the draws.
    """

    def __init__(self, name: str, loader: Iterable[Mapping[str, Any]], seed: int = 0):
        self.name, self.loader, self.seed = name, loader, seed
        self.batch_sampler = getattr(loader, "batch_sampler", None)  # says whether ranks have parts

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Batches.

        Raises:
            ValueError: they have no clips of features and captions side by side.
        """
        names, change = PROBES[self.name]
        for number, batch in enumerate(self.loader):
            if any(not isinstance(batch.get(key), Tensor) for key in names) or batch[names[1]].dim() != 2:
                needed = " and ".join(names)
                raise ValueError(f"eval.probes={self.name} needs batches with {needed}, a clip a row.")
            values, mask = (batch[key] for key in names)
            seeds = np.random.SeedSequence((self.seed, rank() + number * world_size()))
            generator = torch.Generator().manual_seed(int(seeds.generate_state(1, np.uint64)[0] >> 1))
            yield {**batch, **dict(zip(names, change(values, mask.bool(), generator), strict=True))}
