"""What of a padded batch is in use, counted where the batch is made: to ask a GPU would make the host wait
for it.

Letters: B clips, L columns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

COLUMNS = "columns"  # entry of a batch: mask -> columns in use
LENGTHS = "lengths"  # entry of a batch: mask -> columns that each clip fills, (B,)
LABELLED = "labelled"  # entry of a batch: labels of positions -> how many positions carry one
NO_LABEL = -100


def true_places(mask: Tensor, n: int) -> Tensor:
    """(n,) places in `mask.flatten()` of its n true positions, in order; the device is not asked for n."""
    flat = mask.flatten()
    places = torch.arange(flat.numel(), device=mask.device)
    # each true position writes its place to the slot of its rank, the others to one slot more
    slots = (flat.cumsum(0) - 1).masked_fill(~flat, n)
    return places.new_zeros(n + 1).scatter_(0, slots, places)[:n]


def padded(rows: Tensor, places: Tensor, shape: Sequence[int]) -> Tensor:
    """(n, ...) -> (*shape, ...), the rows at their places among all of `shape`, zeros between."""
    empty = rows.new_zeros(math.prod(shape), *rows.shape[1:])
    return empty.index_copy_(0, places, rows).unflatten(0, shape)


def last_column(mask: Tensor) -> int:
    """Columns of a mask (B, L) up to the last one that any row uses, at least one."""
    return max(1, int((mask.any(0) * torch.arange(1, mask.shape[1] + 1, device=mask.device)).amax()))


def known_columns(key: str, batch: Mapping[str, Any]) -> int | None:
    """Columns of a mask that are in use, where the data set has counted them."""
    return batch.get(COLUMNS, {}).get(key)


def filled_columns(mask: Tensor) -> list[int] | None:
    """(B,) columns that each row of a mask (..., L) of the host fills, its leading dimensions as one; None
    where a row has a gap, and its number of columns says not which."""
    rows = mask.flatten(0, -2).numpy()
    return None if (rows[:, 1:] > rows[:, :-1]).any() else rows.sum(1, dtype=int).tolist()


def labels_in_use(labels: Tensor) -> int:
    """Positions that are true or, of a tensor of numbers, not -100."""
    return int((labels if labels.dtype == torch.bool else labels != NO_LABEL).sum())


def known_lengths(key: str, mask: Tensor, batch: Mapping[str, Any]) -> np.ndarray:
    """(B,) columns of a mask (B, L) that each clip fills, as the data set counted them, or counted now where
    the mask is the host's own.

    Raises:
        ValueError: nobody can say.
    """
    known = batch.get(LENGTHS, {}).get(key)
    if known is None and mask.is_cpu:
        known = filled_columns(mask)
    if known is None:
        raise ValueError(
            f"{key}: lengths of clips are not known. Expected rows filled from the left without a gap, and "
            f"where the mask lies on a device the entry {LENGTHS!r} of the batch, as MMDataset.collate makes "
            "it. Leave model.packed and model.length_buckets out for such data."
        )
    if len(known) != len(mask):
        raise ValueError(f"{key}: {len(known)} lengths in the batch, and {len(mask)} rows.")
    return np.asarray(known)
