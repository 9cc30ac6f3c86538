"""BEATs, an audio transformer over patches of a log mel spectrogram, with the parameter names of the released
files.

Source: BEATs (arXiv 2212.09058). Attention adds a gated bias that depends on the distance of two tokens.

Shape letters: N clips, T frames, M mel filters, L = T/p * M/p patches of side p, E width of a patch, D width,
h heads, d width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from mmpt.backbones.backbone import AudioBackbone, refuse_random
from mmpt.checkpoints.weights import plain_state_dict, read_stored
from mmpt.media.fbank import SAMPLE_RATE, kaldi_fbank, normalized
from mmpt.registry import BACKBONES

BUCKET_GATES = 8  # outputs of the linear layer behind the gates: two groups of four, each summed


@dataclass(frozen=True, kw_only=True)
class BeatsConfig:
    """Sizes of BEATs_iter3_plus_AS2M, by the names under which released files store them (`cfg`).

    Attributes:
        input_patch_size: side p of a patch.
        embed_dim: E.
        conv_bias: bias of the patch convolution.
        encoder_layers: layers.
        encoder_embed_dim: D.
        encoder_ffn_embed_dim: inner width of the feed-forward part.
        encoder_attention_heads: h.
        conv_pos, conv_pos_groups: kernel and groups of the convolution that tells positions.
        relative_position_embedding, num_buckets, max_distance: bias of attention by distance, logarithmic
            buckets up to the last one.
        gru_rel_pos: gate that bias by the query.
        layer_norm_first: LayerNorm before each branch instead of behind it.
        deep_norm: residuals weighted by (2 layers)^(1/4) (DeepNet, arXiv 2203.00555).
        layer_wise_gradient_decay_ratio: factor of the gradient that passes each layer.
        dropout, attention_dropout, activation_dropout, dropout_input, encoder_layerdrop: probabilities in
            training.
        finetuned_model, predictor_class: classifier that fine-tuned files hold; it is stored and not used.
        predictor_dropout, activation_fn: as stored; the activation must be gelu.
    """

    input_patch_size: int = 16
    embed_dim: int = 512
    conv_bias: bool = False
    encoder_layers: int = 12
    encoder_embed_dim: int = 768
    encoder_ffn_embed_dim: int = 3072
    encoder_attention_heads: int = 12
    conv_pos: int = 128
    conv_pos_groups: int = 16
    relative_position_embedding: bool = True
    num_buckets: int = 320
    max_distance: int = 800
    gru_rel_pos: bool = True
    layer_norm_first: bool = False
    deep_norm: bool = True
    layer_wise_gradient_decay_ratio: float = 0.6
    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    dropout_input: float = 0.0
    encoder_layerdrop: float = 0.05
    finetuned_model: bool = False
    predictor_class: int = 527
    predictor_dropout: float = 0.0
    activation_fn: str = "gelu"

    def __post_init__(self):
        if self.activation_fn != "gelu":
            raise ValueError(
                f"BEATs with activation_fn={self.activation_fn!r} is not built; the released models use gelu."
            )
        if self.layer_norm_first and self.deep_norm:
            raise ValueError(
                "BEATs: deep_norm and layer_norm_first exclude each other; set one of them to false."
            )
        if self.encoder_embed_dim % self.encoder_attention_heads:
            raise ValueError(
                f"BEATs: {self.encoder_embed_dim} channels are not for {self.encoder_attention_heads} heads."
            )

    @classmethod
    def from_file(cls, stored: Mapping[str, Any]) -> BeatsConfig:
        """The configuration that a released file stores under `cfg`; entries that only pre-training read are
        left out.
        """
        return cls(**{field.name: stored[field.name] for field in fields(cls) if field.name in stored})


class Beats(nn.Module):
    """Log mel spectrograms -> tokens.

    Args:
        config: sizes.

    Attributes:
        checkpointing: compute the activations of a layer again in the backward pass instead of keeping them.
    """

    summary = "mean"

    def __init__(self, config: BeatsConfig):
        super().__init__()
        self.config = config
        patch, width = config.input_patch_size, config.encoder_embed_dim
        self.patch_embedding = nn.Conv2d(1, config.embed_dim, patch, patch, bias=config.conv_bias)
        self.layer_norm = nn.LayerNorm(config.embed_dim)
        self.post_extract_proj = (
            nn.Linear(config.embed_dim, width) if config.embed_dim != width else nn.Identity()
        )
        self.encoder = BeatsEncoder(config)
        if config.finetuned_model:
            self.predictor = nn.Linear(width, config.predictor_class)
        self.checkpointing = False

    @property
    def width(self) -> int:
        """D."""
        return self.config.encoder_embed_dim

    @property
    def checkpointing(self) -> bool:
        return self.encoder.checkpointing

    @checkpointing.setter
    def checkpointing(self, on: bool) -> None:
        self.encoder.checkpointing = on

    def forward(self, fbank: Tensor) -> Tensor:
        """Normalised log mel energies (N, T, M) -> (N, L, D), time-major: the frequencies of a moment side by
        side.

        T and M that are no multiple of p lose their end.
        """
        x = self.patch_embedding(fbank[:, None]).flatten(2).transpose(1, 2)
        x = self.post_extract_proj(self.layer_norm(x))
        return self.encoder(functional.dropout(x, self.config.dropout_input, self.training))


class BeatsEncoder(nn.Module):
    """Positions by a convolution, then the transformer: (N, L, D) -> (N, L, D)."""

    def __init__(self, config: BeatsConfig):
        super().__init__()
        self.config = config
        self.checkpointing = False
        self.pos_conv = nn.ModuleList([PositionConvolution(config)])
        # One table for all layers, listed in each of them, as the released files do.
        table = (
            nn.Embedding(config.num_buckets, config.encoder_attention_heads)
            if config.relative_position_embedding
            else None
        )
        self.layers = nn.ModuleList(BeatsLayer(config, table) for _ in range(config.encoder_layers))
        self.layer_norm = nn.LayerNorm(config.encoder_embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        config = self.config
        x = x + self.pos_conv[0](x)
        if not config.layer_norm_first:
            x = self.layer_norm(x)
        x = functional.dropout(x, config.dropout, self.training)
        bias = self._bias(x.shape[1], x.device)
        for layer in self.layers:
            x = _ScaledGradient.apply(x, config.layer_wise_gradient_decay_ratio)
            remember = self.checkpointing and torch.is_grad_enabled()
            after = checkpoint(layer, x, bias, use_reentrant=False) if remember else layer(x, bias)
            if self.training and config.encoder_layerdrop and torch.rand(()) < config.encoder_layerdrop:
                after = (
                    x + 0 * after
                )  # computed all the same: every process must have a gradient of every parameter
            x = after
        return self.layer_norm(x) if config.layer_norm_first else x

    def _bias(self, length: int, device: torch.device) -> Tensor | None:
        """(h, L, L) for query and key by their distance."""
        table = self.layers[0].self_attn.relative_attention_bias if self.layers else None
        if table is None:
            return None
        place = torch.arange(length, device=device)
        distances = place[None, :] - place[:, None]
        return table(relative_bucket(distances, self.config.num_buckets, self.config.max_distance)).permute(
            2, 0, 1
        )


def relative_bucket(distance: Tensor, n_buckets: int, max_distance: int) -> Tensor:
    """The bucket of each distance, key minus query: half of the buckets for each sign.

    Of a half, the first half are one distance each; the others widen logarithmically up to `max_distance`
    (T5, arXiv 1910.10683).
    """
    half = n_buckets // 2
    exact = half // 2
    size = distance.abs()
    ratio = (size.clamp_min(1).float() / exact).log() / math.log(max_distance / exact)
    wide = exact + (ratio * (half - exact)).long()
    return torch.where(size < exact, size, wide.clamp_max(half - 1)) + half * (distance > 0)


class PositionConvolution(nn.Module):
    """GELU of a grouped convolution over the tokens, whose kernel has one learned norm at each place (weight
    normalisation).
    """

    def __init__(self, config: BeatsConfig):
        super().__init__()
        width, kernel, self.groups = config.encoder_embed_dim, config.conv_pos, config.conv_pos_groups
        self.bias = nn.Parameter(torch.zeros(width))
        self.weight_v = nn.Parameter(
            torch.randn(width, width // self.groups, kernel) * math.sqrt(4 / (kernel * width))
        )
        self.weight_g = nn.Parameter(self.weight_v.detach().norm(dim=(0, 1), keepdim=True))

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, D) -> (N, L, D)."""
        kernel = self.weight_v.shape[2]
        weight = self.weight_v * (self.weight_g / self.weight_v.norm(dim=(0, 1), keepdim=True))
        mixed = functional.conv1d(
            x.transpose(1, 2), weight, self.bias, padding=kernel // 2, groups=self.groups
        )
        return functional.gelu(mixed[..., : x.shape[1]]).transpose(
            1, 2
        )  # an even kernel gives one position too many


class BeatsLayer(nn.Module):
    """Attention and feed-forward part, each added to what it read."""

    def __init__(self, config: BeatsConfig, table: nn.Embedding | None):
        super().__init__()
        self.config = config
        width = config.encoder_embed_dim
        self.alpha = (2 * config.encoder_layers) ** 0.25 if config.deep_norm else 1.0
        self.self_attn = BeatsAttention(config, table)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, config.encoder_ffn_embed_dim)
        self.fc2 = nn.Linear(config.encoder_ffn_embed_dim, width)
        self.final_layer_norm = nn.LayerNorm(width)
        if config.deep_norm:
            self._shrink(math.pow(8 * config.encoder_layers, -0.25))

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """(N, L, D) -> (N, L, D)."""
        if self.config.layer_norm_first:
            x = x + self._dropped(self.self_attn(self.self_attn_layer_norm(x), bias))
            return x + self._feed(self.final_layer_norm(x))
        x = self.self_attn_layer_norm(self.alpha * x + self._dropped(self.self_attn(x, bias)))
        return self.final_layer_norm(self.alpha * x + self._feed(x))

    def _feed(self, x: Tensor) -> Tensor:
        inner = functional.dropout(
            functional.gelu(self.fc1(x)), self.config.activation_dropout, self.training
        )
        return self._dropped(self.fc2(inner))

    def _dropped(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.config.dropout, self.training)

    def _shrink(self, gain: float) -> None:
        """DeepNet's start: values, outputs and the feed-forward part begin small, so that deep sums stay
        bounded.
        """
        for layer in self.self_attn.v_proj, self.self_attn.out_proj, self.fc1, self.fc2:
            nn.init.xavier_normal_(layer.weight, gain=gain)


class BeatsAttention(nn.Module):
    """Self-attention with a bias by distance, which a gate of each query scales."""

    def __init__(self, config: BeatsConfig, table: nn.Embedding | None):
        super().__init__()
        width, self.n_heads = config.encoder_embed_dim, config.encoder_attention_heads
        self.dropout = config.attention_dropout
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))
        self.relative_attention_bias = table
        self.gated = config.gru_rel_pos and table is not None
        if self.gated:
            self.grep_linear = nn.Linear(width // self.n_heads, BUCKET_GATES)
            self.grep_a = nn.Parameter(torch.ones(1, self.n_heads, 1, 1))

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Tokens (N, L, D) and the bias (h, L, L) -> (N, L, D)."""
        q, k, v = (
            layer(x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )  # (N, h, L, d)
        if bias is not None:
            bias = (self._gate(q) * bias).to(q.dtype) if self.gated else bias[None].to(q.dtype)
        dropout = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))

    def _gate(self, q: Tensor) -> Tensor:
        """(N, h, L, 1): keep * (change * a - 1) + 2, with both gates between 0 and 1."""
        keep, change = self.grep_linear(q).unflatten(-1, (2, -1)).sum(-1).sigmoid().chunk(2, dim=-1)
        return keep * (change * self.grep_a - 1.0) + 2.0


class _ScaledGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a number."""

    @staticmethod
    def forward(ctx, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.scale, None


def beats_of_file(path: str | Path, **sizes: Any) -> Beats:
    """BEATs with the sizes and weights of a released file, a dict of `cfg` and `model`.

    Args:
        path: the file.
        **sizes: fields of `BeatsConfig` that differ.

    Raises:
        ValueError: another kind of file, or tensors are missing.
    """
    stored = read_stored(path)
    if not isinstance(stored, Mapping) or not all(
        isinstance(stored.get(key), Mapping) for key in ("cfg", "model")
    ):
        raise ValueError(f"{path} is no file of BEATs: expected a dict with cfg and model.")
    tower = Beats(replace(BeatsConfig.from_file(stored["cfg"]), **sizes))
    state, own = plain_state_dict(stored["model"]), tower.state_dict()
    refuse_random(path, "beats", [key for key in own if key not in state], len(own))
    tower.load_state_dict({key: state[key] for key in own})
    return tower


class MeanToken(nn.Module):
    """A tower's tokens, averaged: (N, T, M) -> (N, D)."""

    def __init__(self, tower: nn.Module):
        super().__init__()
        self.tower = tower

    def forward(self, fbank: Tensor) -> Tensor:
        return self.tower(fbank).mean(1)


@BACKBONES.register("beats")
class BeatsBackbone(AudioBackbone):
    """Mean token of BEATs over ten seconds, with a file such as BEATs_iter3_plus_AS2M.pt."""

    sample_rate, window_s, n_filters = SAMPLE_RATE, 10, 128

    def build(self, model: str) -> nn.Module:
        return nn.Identity()  # the file says how large it is

    def _filled(self, network: nn.Module, weights: str | Path) -> nn.Module:
        return MeanToken(beats_of_file(weights))

    def prepare(self, waves: np.ndarray) -> np.ndarray:
        return np.stack([normalized(kaldi_fbank(wave, self.n_filters)) for wave in waves])
