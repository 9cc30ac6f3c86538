"""Attention pooling of token sequences and embedding of feature crops, with the parameter names of published
STiCA checkpoints.

Shapes: B clips, T time steps, C width, A attention heads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mmpt.ops.crops import Crop, map_tokens
from mmpt.ops.precision import full_precision

NORM_EPS = 1e-12
INIT_STD = 0.02


class AttentionPool(nn.Module):
    """A small transformer over time whose first output step is the pooled vector; without layers, the mean.

    Layers are post-norm; attention mixes the inputs themselves unless `value_proj` adds value and output
    projections.

    Args:
        dim: width C.
        layers: transformer layers; 0 = mean over time.
        heads: attention heads; divides `dim`.
        ffn: width of the feed-forward layer.
        positional: add learned positions (at most `max_steps`).
        value_proj: project values and outputs, as ordinary attention does.
        out_step: `first` or `mean` of the output steps.
        dropout: on attention weights and context.
        max_steps: length of the position table.
    """

    def __init__(
        self,
        dim: int,
        layers: int = 2,
        heads: int = 4,
        ffn: int = 2048,
        positional: bool = False,
        value_proj: bool = False,
        out_step: str = "first",
        dropout: float = 0.0,
        max_steps: int = 64,
    ):
        super().__init__()
        if out_step not in ("first", "mean"):
            raise ValueError(f"out_step={out_step!r}: expected first or mean.")
        if layers and dim % heads:
            raise ValueError(f"dim={dim} is not a multiple of heads={heads}.")
        self.out_step = out_step
        self.order_sensitive = bool(layers) and (
            positional or out_step == "first"
        )  # the first step asks, all steps answer
        self.transformer = nn.ModuleList(
            PoolLayer(dim, heads, ffn, value_proj, dropout) for _ in range(layers)
        )
        self.pos_embs = nn.ModuleList([nn.Embedding(max_steps, dim)] if positional and layers else [])
        self.apply(_init)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Tokens (B, T, C), mask (B, T) bool with true = real token -> (B, C); a row without tokens gives
        zeros."""
        hidden = self.steps(tokens, mask)
        if mask is None:
            return hidden.mean(1) if not self.transformer or self.out_step == "mean" else hidden[:, 0]
        weights = mask.to(hidden.dtype)
        if self.transformer and self.out_step == "first":
            weights = weights * (mask.cumsum(1) == 1)  # the first real token
        # A padded step may hold anything, NaN included: it must not enter, not even times zero.
        summed = hidden.masked_fill(~mask[..., None], 0.0).mul(weights[..., None]).sum(1)
        return summed / weights.sum(1, keepdim=True).clamp_min(1)

    def steps(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """All output steps (B, T, C)."""
        hidden = tokens
        for table in self.pos_embs:
            hidden = hidden + table(torch.arange(tokens.shape[1], device=tokens.device))
        for layer in self.transformer:
            hidden = layer(hidden, mask)
        return hidden


class PoolLayer(nn.Module):
    """Post-norm transformer layer with the attention of `PoolAttention`."""

    def __init__(self, dim: int, heads: int, ffn: int, value_proj: bool, dropout: float):
        super().__init__()
        self.mha = PoolAttention(dim, heads, value_proj, dropout)
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.ffn = nn.ModuleDict({"lin1": nn.Linear(dim, ffn), "lin2": nn.Linear(ffn, dim)})
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.norm1(x + self.dropout(self.mha(x, mask)))
        return self.norm2(x + self.ffn["lin2"](nn.functional.gelu(self.ffn["lin1"](x))))


class PoolAttention(nn.Module):
    """Multi-head self-attention; by default the values are the inputs, split over the heads."""

    def __init__(self, dim: int, heads: int, value_proj: bool, dropout: float):
        super().__init__()
        self.heads = heads
        self.q_lin, self.k_lin = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.v_lin = nn.Linear(dim, dim) if value_proj else nn.Identity()
        self.out_lin = nn.Linear(dim, dim) if value_proj else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        query, key, value = (
            lin(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for lin in (self.q_lin, self.k_lin, self.v_lin)
        )  # (B, A, T, C / A)
        scores = full_precision(query @ key.mT / math.sqrt(query.shape[-1]))
        if mask is not None:
            scores = scores.masked_fill(
                ~mask[:, None, None], torch.finfo(scores.dtype).min
            )  # finite: a row of padding stays finite
            value = value.masked_fill(~mask[:, None, :, None], 0.0)
        context = self.dropout(scores.softmax(-1).to(x.dtype)) @ value
        return self.out_lin(context.transpose(1, 2).flatten(2))


class CropEmbedding(nn.Module):
    """Embeds a feature map and its crops with one pooling and one head: the tensors that `STiCALoss` reads.

    Args:
        pool: `AttentionPool`.
        head: projection to the embedding; each kind of crop passes it separately, as batch norm statistics
            differ between kinds.
        steps: time steps that every crop is stretched to; null: those of the map.
    """

    def __init__(self, pool: AttentionPool, head: nn.Module, steps: int | None = None):
        super().__init__()
        self.pool, self.head, self.steps = pool, head, steps

    def embed(self, features: Tensor) -> Tensor:
        """Maps (B, C, T, H, W) or sequences (B, T, C) -> (B, D)."""
        return self.head(self.pool(map_tokens(features, self.steps)))

    def forward(
        self, features: Tensor, crops: Iterable[Crop], version: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Embedding of the whole map (B, D), and of its crops: kind and version, such as `sl1` -> (n, B, D).

        Small crops of version 1 take part in no comparison and are skipped.
        """
        return self.embed(features), self.crops(features, crops, version)

    def crops(self, features: Tensor, crops: Iterable[Crop], version: int) -> dict[str, Tensor]:
        """The crops alone, each stretched to the time steps of the whole."""
        n_steps = self.steps or features.shape[1 if features.dim() == 3 else 2]
        found: dict[str, list[Tensor]] = {}
        for crop in crops:
            if version == 2 or crop.kind.endswith("l"):
                found.setdefault(f"{crop.kind}{version}", []).append(
                    self.head(self.pool(crop.tokens(features, n_steps)))
                )
        return {kind: torch.stack(embedded) for kind, embedded in found.items()}


def _init(module: nn.Module) -> None:
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=INIT_STD)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
