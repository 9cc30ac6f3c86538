"""The positions of a padded batch that are read, without those that fill it up.

Linear layers, LayerNorms, activations and dropout see the read positions of all clips as one row. Attention
alone needs to know where a clip ends: on CUDA it runs on nested tensors, for which torch has kernels of
variable lengths; on the CPU, where it is a hundredth of the work, on a padded copy.

Shape letters: B clips, L positions, n read positions of all clips, h heads, d width of a head.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmpt.utils.columns import padded, true_places

warnings.filterwarnings("ignore", message="The PyTorch API of nested tensors is in prototype stage")


def chosen(x: Tensor, mask: Tensor, n: int | None) -> Tensor:
    """(B, L, D) -> (n, D), where a mask (B, L) is true.

    Args:
        n: how many that are, as the data set counted them; None: the host looks, and waits for the device.
    """
    return x[mask] if n is None else x.flatten(0, 1).index_select(0, true_places(mask, n))


@dataclass(frozen=True)
class Packing:
    """Where the read positions of a batch are.

    Attributes:
        index: (n) their places among the B * L, on the device.
        lengths: (B) how many each clip has, of the host.
        shape: B, L.
    """

    index: Tensor
    lengths: np.ndarray
    shape: tuple[int, int]

    @classmethod
    def of(cls, mask: Tensor, lengths: np.ndarray) -> Packing:
        """The true positions of a mask (B, L); only the host's `lengths` say how many, so that nobody waits
        for the device."""
        return cls(true_places(mask, int(lengths.sum())), lengths, tuple(mask.shape))

    def pack(self, x: Tensor) -> Tensor:
        """(B, L, ...) -> (n, ...)."""
        return x.flatten(0, 1).index_select(0, self.index)

    def pad(self, x: Tensor) -> Tensor:
        """(n, ...) -> (B, L, ...), zeros between."""
        return padded(x, self.index, self.shape)

    def for_attention(self, x: Tensor) -> Tensor:
        """(n, ...) -> (B, L, ...) in the form that attention is fastest with."""
        return self.nested(x) if x.is_cuda else self.pad(x)

    def nested(self, x: Tensor) -> Tensor:
        """(n, ...) -> a nested tensor (B, lengths, ...)."""
        counts = torch.from_numpy(np.concatenate([[0], self.lengths]))
        offsets = counts.cumsum(0).to(x.device, non_blocking=True)
        bounds = {"min_seqlen": int(self.lengths.min()), "max_seqlen": int(self.lengths.max())}
        return torch.nested.nested_tensor_from_jagged(x, offsets, **bounds)
