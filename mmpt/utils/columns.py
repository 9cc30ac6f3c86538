"""Which columns of a padded batch are in use, counted where the batch is made: to ask a GPU would make the
host wait for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

COLUMNS = "columns"  # entry of a batch: mask -> columns in use


def last_column(mask: Tensor) -> int:
    """Columns of a mask (B, L) up to the last one that any row uses, at least one."""
    return max(1, int((mask.any(0) * torch.arange(1, mask.shape[1] + 1, device=mask.device)).amax()))


def known_columns(key: str, batch: Mapping[str, Any]) -> int | None:
    """Columns of a mask that are in use, where the data set has counted them."""
    return batch.get(COLUMNS, {}).get(key)
