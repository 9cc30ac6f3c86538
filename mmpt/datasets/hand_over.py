"""Video features on their way from the process that reads them to the device: as they are stored, without
padding. That is 10 of the 32 KiB of a clip padded in float32 (9 of 16 seconds, width 512).

Shape letters: B clips (one dimension or more), F seconds, D width, n valid seconds of all clips.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from mmpt.processors.base import Aligner
from mmpt.utils.columns import padded, true_places

PACKED = "packed"  # entry of a batch: features without padding
FEATURES, MASK = "vfeats", "vmasks"


def send_as_stored(dataset: Any) -> None:
    """Let a data set, or each set of a mixture, keep features in the type of their files: for a training on a
    GPU. On a CPU nothing is sent, and to widen them where they are read costs least."""
    for part in getattr(dataset, "parts", {"": dataset}).values():
        if isinstance(part.aligner, Aligner):
            part.aligner.as_stored = True


def pack(batch: dict[str, Any]) -> dict[str, Any]:
    """A batch whose float16 `vfeats` (B, F, D) are rows (n, D), those where `vmasks` (B, F) is true. Features
    in float32 stay as they are."""
    features, mask = batch.get(FEATURES), batch.get(MASK)
    if features is None or mask is None or features.dtype != torch.float16:
        return batch
    rest = {name: value for name, value in batch.items() if name != FEATURES}
    return rest | {PACKED: {FEATURES: features[mask]}}


def unpack(batch: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """The batch that `pack` was given, on its device and in the type that the model computes in; any other
    batch as it is."""
    if PACKED not in batch:
        return dict(batch)
    rows, mask = batch[PACKED][FEATURES], batch[MASK]
    rest = {name: value for name, value in batch.items() if name != PACKED}
    places = true_places(mask, len(rows))
    return rest | {FEATURES: padded(rows.to(dtype), places, mask.shape)}
