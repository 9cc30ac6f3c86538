"""Models that read the right answer off synthetic features; importing this module registers them.

A caption's code is drawn from its token ids alone; features show the codes of what happens. So features
written in order give perfect scores, features in another order give chance.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch
from torch import nn

from mmpt.models.mmfusion import Encoded
from mmpt.registry import MODELS

WIDTH = 64


def code(ids) -> np.ndarray:
    """A unit vector (WIDTH,) that belongs to a list of token ids."""
    key = zlib.crc32(np.asarray(list(ids), dtype=np.int64).tobytes())
    vector = np.random.default_rng(key).normal(size=WIDTH).astype(np.float32)
    return vector / np.linalg.norm(vector)


def codes_of(caps: torch.Tensor, cmasks: torch.Tensor) -> torch.Tensor:
    """(N, T) packed captions -> (N, WIDTH); words stand between `[CLS] [SEP]` and the last `[SEP]`."""
    return torch.from_numpy(
        np.stack([code(row[mask][2:-1].tolist()) for row, mask in zip(caps.cpu(), cmasks.cpu(), strict=True)])
    )


class Oracle(nn.Module):
    """Common part; the one parameter tells where the model is."""

    def __init__(self, config):
        super().__init__()
        self.where = nn.Parameter(torch.zeros(1))

    def forward_video(self, vfeats, vmasks, caps, cmasks) -> Encoded:
        """What is shown on average; token positions are the features themselves."""
        outputs = nn.functional.pad(vfeats, (0, 0, 1, 1))
        return Encoded.of(outputs, nn.functional.pad(vmasks, (1, 1)))


@MODELS.register()
class OracleRetrieval(Oracle):
    """Clips and captions."""

    def forward(self, caps, cmasks, vfeats, vmasks, **batch):
        return {
            "pooled_video": self.forward_video(vfeats, vmasks, caps, cmasks).pooled,
            "pooled_text": codes_of(caps, cmasks),
        }


@MODELS.register()
class OracleFullVideo(Oracle):
    """All windows and captions of one video."""

    def forward(self, caps, cmasks, vfeats, vmasks, **batch):
        pooled = self.forward_video(vfeats[0], vmasks[0], caps[0], cmasks[0]).pooled
        return {"pooled_video": pooled, "pooled_text": codes_of(caps[0], cmasks[0])}


@MODELS.register()
class OracleLocalisation(Oracle):
    """Seconds against steps."""

    # moderate: putting a step that is not shown on the second of another one costs less than giving that one
    # up
    SCALE = 3.0

    def forward(self, caps, cmasks, vfeats, vmasks, **batch):
        return {"logits": self.SCALE * vfeats[0][vmasks[0]] @ codes_of(caps[0], cmasks[0]).T}
