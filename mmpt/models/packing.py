"""BERT on the positions of a padded batch that are read, without those that fill it up.

Linear layers, LayerNorms, activations and dropout see the read positions of all clips as one row. Attention
alone needs to know where a clip ends: on CUDA it runs on nested tensors, for which torch has kernels of
variable lengths; on the CPU, where it is a hundredth of the work, on a padded copy.

Shape letters: B clips, L positions, n read positions of all clips, h heads, d width of a head.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface, BertModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

PACKED = "mmpt_packed"  # the name of our attention among those of transformers


def true_places(mask: Tensor, n: int) -> Tensor:
    """(n,) places in `mask.flatten()` of its n true positions, in order; the device is not asked for n."""
    flat = mask.flatten()
    places = torch.arange(flat.numel(), device=mask.device)
    # each true position writes its place to the slot of its rank, the others to one slot more
    slots = (flat.cumsum(0) - 1).masked_fill(~flat, n)
    return places.new_zeros(n + 1).scatter_(0, slots, places)[:n]


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
        n_clips, length = self.shape
        places = x.new_zeros(n_clips * length, *x.shape[1:])
        return places.index_copy(0, self.index, x).unflatten(0, self.shape)

    def for_attention(self, x: Tensor) -> Tensor:
        """(n, ...) -> (B, L, ...) in the form that attention is fastest with."""
        return self.nested(x) if x.is_cuda else self.pad(x)

    def nested(self, x: Tensor) -> Tensor:
        """(n, ...) -> a nested tensor (B, lengths, ...)."""
        counts = torch.from_numpy(np.concatenate([[0], self.lengths]))
        offsets = counts.cumsum(0).to(x.device, non_blocking=True)
        bounds = {"min_seqlen": int(self.lengths.min()), "max_seqlen": int(self.lengths.max())}
        return torch.nested.nested_tensor_from_jagged(x, offsets, **bounds)


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    packing: Packing | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention in the signature of transformers: (1, h, n, d) -> (1, n, h, d), a clip's positions reading
    one another; without `packing` that of padded batches.

    Args:
        attention_mask: (B, 1, 1, L) bool, read positions of the padded batch.
    """
    if packing is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    parts = (x[0].transpose(0, 1) for x in (query, key, value))  # (n, h, d)
    query, key, value = (packing.for_attention(x).transpose(1, 2) for x in parts)  # (B, h, L, d)
    mask = None if query.is_nested else attention_mask
    mixed = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling
    ).transpose(1, 2)
    return (mixed.values() if mixed.is_nested else packing.pack(mixed))[None], None


warnings.filterwarnings("ignore", message="The PyTorch API of nested tensors is in prototype stage")
AttentionInterface.register(PACKED, packed_attention)


def read_packed(bert: BertModel, mask: Tensor, lengths: np.ndarray, **inputs: Tensor) -> Tensor:
    """Last hidden states (B, L, D) of the read positions, zeros elsewhere.

    Args:
        bert: bidirectional, its attention `PACKED`.
        mask: (B, L) read positions.
        lengths: (B,) how many each clip has, of the host.
        inputs: of the BERT, (B or 1, L, ...).
    """
    packing = Packing.of(mask.bool(), lengths)
    rows = {name: packing.pack(x.expand(*mask.shape, *x.shape[2:]))[None] for name, x in inputs.items()}
    # a mask of four dimensions reaches the attention as it is
    hidden = bert(attention_mask=mask[:, None, None].bool(), packing=packing, **rows).last_hidden_state
    return packing.pad(hidden[0])
