"""The vision towers of EVA-CLIP, with the parameter names of the released files.

A plain ViT whose extras depend on the member of the family: rotary positions, SwiGLU, LayerNorms inside the
sub-layers (sub-LN), LayerNorm after each branch (post-norm), or layer scale. Sources: EVA (arXiv 2211.07636),
EVA-02 (arXiv 2303.11331) and EVA-CLIP (arXiv 2303.15389).

Shape letters: N images, P patches = g x g, D width, h heads, d width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from mmpt.backbones.backbone import VideoBackbone, refuse_random
from mmpt.backbones.external import ImageTower
from mmpt.checkpoints.weights import read_state_dict
from mmpt.media.frames import PIXELS
from mmpt.registry import BACKBONES

NORM_EPS = 1e-6
ROTARY_BASE = 10000.0


@dataclass(frozen=True, kw_only=True)
class EvaConfig:
    """Sizes and extras of one tower.

    Attributes:
        image_size: height and width of an image in pixels.
        patch_size: height and width of a patch.
        width: D.
        layers: blocks.
        head_width: d; there are width // head_width heads.
        mlp_ratio: inner width of the MLP, int(width * ratio).
        embed_dim: width of the joint space of CLIP, which `head` maps to.
        rotary: rotate queries and keys of the patches by their place.
        rotary_grid: side of the grid that the rotary frequencies were trained on; other grids are stretched
            over it.
        swiglu: gated MLP instead of GELU.
        sub_norm: LayerNorm before the output projections, and separate query, key and value matrices.
        post_norm: LayerNorm behind each branch instead of before it.
        layer_scale: first value of a learned factor per channel of each branch; None: no such factor.
        drop_path: probability of leaving out a branch of a sample in training, in the last block; earlier
            ones less, linearly.
    """

    image_size: int = 224
    patch_size: int = 14
    width: int = 1408
    layers: int = 40
    head_width: int = 88
    mlp_ratio: float = 4.3637
    embed_dim: int = 1024
    rotary: bool = False
    rotary_grid: int = 16
    swiglu: bool = False
    sub_norm: bool = False
    post_norm: bool = False
    layer_scale: float | None = None
    drop_path: float = 0.0

    def __post_init__(self):
        for whole, part in ("width", "head_width"), ("image_size", "patch_size"):
            if getattr(self, whole) % getattr(self, part):
                raise ValueError(
                    f"EVA: {whole}={getattr(self, whole)} is not a multiple of {part}={getattr(self, part)}."
                )

    @property
    def grid(self) -> int:
        """Patches in a row."""
        return self.image_size // self.patch_size


GIANT = EvaConfig(drop_path=0.4)
EVA02: dict[str, Any] = {
    "rotary": True,
    "swiglu": True,
    "sub_norm": True,
    "mlp_ratio": 2.6667,
    "head_width": 64,
}
LARGE = EvaConfig(width=1024, layers=24, embed_dim=768, **EVA02)
ENORMOUS = EvaConfig(width=1792, layers=64, head_width=112, mlp_ratio=8.571428571428571, post_norm=True)
EVA_CLIP = {
    "EVA01-CLIP-B-16": EvaConfig(
        patch_size=16, width=768, layers=12, head_width=64, mlp_ratio=4.0, embed_dim=512, layer_scale=0.1
    ),
    "EVA01-CLIP-g-14": GIANT,
    "EVA01-CLIP-g-14-plus": replace(GIANT, drop_path=0.0),
    "EVA02-CLIP-B-16": EvaConfig(patch_size=16, width=768, layers=12, embed_dim=512, **EVA02),
    "EVA02-CLIP-L-14": LARGE,
    "EVA02-CLIP-L-14-336": replace(LARGE, image_size=336),
    "EVA02-CLIP-bigE-14": ENORMOUS,
    "EVA02-CLIP-bigE-14-plus": ENORMOUS,
}
TYPES = {  # what the releases of GRAM and VAST call some of them
    "evaclip01_giant": "EVA01-CLIP-g-14",
    "evaclip02_base": "EVA02-CLIP-B-16",
    "evaclip02_base_self": "EVA02-CLIP-B-16",
    "evaclip02_large": "EVA02-CLIP-L-14",
    "evaclip02_bige": "EVA02-CLIP-bigE-14-plus",
}


def eva_config(name: str, image_size: int | None = None) -> EvaConfig:
    """The sizes of a member of the family, by its own name or the release's, for another image size where one
    is given.

    Raises:
        ValueError: unknown name.
    """
    if TYPES.get(name, name) not in EVA_CLIP:
        raise ValueError(f"unknown EVA-CLIP tower {name!r}; known: {', '.join((*TYPES, *EVA_CLIP))}.")
    config = EVA_CLIP[TYPES.get(name, name)]
    return config if image_size is None else replace(config, image_size=image_size)


class EvaVision(nn.Module):
    """The tower: images -> tokens, the class token first.

    Args:
        config: its sizes.

    Attributes:
        checkpointing: compute the activations of a block again in the backward pass instead of keeping them.
    """

    summary = "first"

    def __init__(self, config: EvaConfig):
        super().__init__()
        self.config = config
        self.checkpointing = False
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.grid**2 + 1, config.width))
        self.patch_embed = PatchEmbedding(config)
        self.rope = Rotary(config) if config.rotary else None
        rates = [config.drop_path * i / max(1, config.layers - 1) for i in range(config.layers)]
        self.blocks = nn.ModuleList(Block(config, rate) for rate in rates)
        self.norm = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.head = nn.Linear(config.width, config.embed_dim)
        self._initialise()

    @property
    def width(self) -> int:
        """D."""
        return self.config.width

    @property
    def image_size(self) -> int:
        """Height and width of an image in pixels."""
        return self.config.image_size

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised images (N, 3, image_size, image_size) -> tokens (N, 1 + P, D) behind the last LayerNorm.

        Raises:
            ValueError: images of another size.
        """
        expected = (3, self.config.image_size, self.config.image_size)
        if pixels.dim() != 4 or pixels.shape[1:] != expected:
            got = tuple(pixels.shape)
            raise ValueError(
                f"EvaVision reads images (N, {', '.join(map(str, expected))}), got {got}; scale them so."
            )
        x = self.patch_embed(pixels)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed
        for block in self.blocks:
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, self.rope, use_reentrant=False)
            else:
                x = block(x, self.rope)
        return self.norm(x)

    def embed(self, pixels: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> their vectors (N, embed_dim) in the joint space of CLIP, not normalised."""
        return self.head(self.forward(pixels)[:, 0])

    def _initialise(self) -> None:
        """Truncated normal of deviation 0.02; output projections shrink with depth, as the releases start."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        with torch.no_grad():
            for number, block in enumerate(self.blocks, start=1):
                for projection in block.attn.proj, block.mlp.last:
                    projection.weight.div_(math.sqrt(2 * number))


class PatchEmbedding(nn.Module):
    """Patches -> tokens, row by row."""

    def __init__(self, config: EvaConfig):
        super().__init__()
        self.proj = nn.Conv2d(3, config.width, config.patch_size, config.patch_size)

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, P, D)."""
        return self.proj(pixels).flatten(2).transpose(1, 2)


class Rotary(nn.Module):
    """Rotates pairs of neighbouring channels by angles that grow with the row (first half of d) and the
    column (second half).

    The tables depend on the grid alone: they are computed, not stored. Their precision is float32, as
    released.
    """

    def __init__(self, config: EvaConfig):
        super().__init__()
        half = config.head_width // 2
        inverse = 1.0 / ROTARY_BASE ** (torch.arange(0, half, 2)[: half // 2].float() / half)
        place = torch.arange(config.grid) / config.grid * config.rotary_grid
        angles = (place[:, None] * inverse).repeat_interleave(2, dim=1)  # (g, d / 2)
        rows = angles[:, None].expand(-1, config.grid, -1)
        columns = angles[None].expand(config.grid, -1, -1)
        joined = torch.cat([rows, columns], dim=2).flatten(0, 1)  # (P, d)
        self.register_buffer("freqs_cos", joined.cos(), persistent=False)
        self.register_buffer("freqs_sin", joined.sin(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Queries or keys (N, h, 1 + P, d); the class token stays as it is."""
        first, patches = x[:, :, :1], x[:, :, 1:]
        pairs = patches.unflatten(-1, (-1, 2))
        turned = torch.stack([-pairs[..., 1], pairs[..., 0]], dim=-1).flatten(-2)
        return torch.cat([first, (patches * self.freqs_cos + turned * self.freqs_sin).to(x.dtype)], dim=2)


class Attention(nn.Module):
    """Self-attention whose keys have no bias."""

    def __init__(self, config: EvaConfig):
        super().__init__()
        width = config.width
        self.n_heads = width // config.head_width
        if config.sub_norm:
            self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width, bias=False) for _ in range(3))
        else:
            self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.inner_attn_ln = nn.LayerNorm(width, eps=NORM_EPS) if config.sub_norm else nn.Identity()
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, rope: Rotary | None) -> Tensor:
        """(N, L, D) -> (N, L, D)."""
        q, k, v = (
            part.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for part in self._project(x)
        )  # (N, h, L, d)
        if rope is not None:
            q, k = rope(q), rope(k)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(self.inner_attn_ln(mixed.transpose(1, 2).flatten(2)))

    def _project(self, x: Tensor) -> tuple[Tensor, ...]:
        if hasattr(self, "qkv"):
            bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
            return functional.linear(x, self.qkv.weight, bias).chunk(3, dim=-1)
        q = functional.linear(x, self.q_proj.weight, self.q_bias)
        return q, self.k_proj(x), functional.linear(x, self.v_proj.weight, self.v_bias)


class GeluMlp(nn.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, config: EvaConfig):
        super().__init__()
        hidden = int(config.width * config.mlp_ratio)
        self.fc1 = nn.Linear(config.width, hidden)
        self.ffn_ln = nn.LayerNorm(hidden, eps=NORM_EPS) if config.sub_norm else nn.Identity()
        self.fc2 = nn.Linear(hidden, config.width)

    @property
    def last(self) -> nn.Linear:
        return self.fc2

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.ffn_ln(functional.gelu(self.fc1(x))))


class SwiGluMlp(nn.Module):
    """silu(W1 x) * (W2 x), then W3 (Shazeer, arXiv 2002.05202)."""

    def __init__(self, config: EvaConfig):
        super().__init__()
        hidden = int(config.width * config.mlp_ratio)
        self.w1 = nn.Linear(config.width, hidden)
        self.w2 = nn.Linear(config.width, hidden)
        self.ffn_ln = nn.LayerNorm(hidden, eps=NORM_EPS) if config.sub_norm else nn.Identity()
        self.w3 = nn.Linear(hidden, config.width)

    @property
    def last(self) -> nn.Linear:
        return self.w3

    def forward(self, x: Tensor) -> Tensor:
        return self.w3(self.ffn_ln(functional.silu(self.w1(x)) * self.w2(x)))


class Block(nn.Module):
    """Attention and MLP, each added to what it read.

    Args:
        config: sizes.
        drop_path: probability of leaving out a branch of a sample in training.
    """

    def __init__(self, config: EvaConfig, drop_path: float):
        super().__init__()
        self.post_norm, self.drop_path = config.post_norm, drop_path
        self.norm1 = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.mlp = SwiGluMlp(config) if config.swiglu else GeluMlp(config)
        if config.layer_scale is not None:
            self.gamma_1 = nn.Parameter(torch.full((config.width,), config.layer_scale))
            self.gamma_2 = nn.Parameter(torch.full((config.width,), config.layer_scale))

    def forward(self, x: Tensor, rope: Rotary | None) -> Tensor:
        """(N, L, D) -> (N, L, D)."""
        if self.post_norm:
            x = x + self._thinned(self.norm1(self.attn(x, rope)))
            return x + self._thinned(self.norm2(self.mlp(x)))
        first, second = getattr(self, "gamma_1", 1.0), getattr(self, "gamma_2", 1.0)
        x = x + self._thinned(first * self.attn(self.norm1(x), rope))
        return x + self._thinned(second * self.mlp(self.norm2(x)))

    def _thinned(self, branch: Tensor) -> Tensor:
        """Stochastic depth (arXiv 1603.09382): whole samples set to 0, the others scaled up so that the mean
        stays.
        """
        if not self.training or not self.drop_path:
            return branch
        keep = torch.empty(len(branch), 1, 1, dtype=branch.dtype, device=branch.device).bernoulli_(
            1 - self.drop_path
        )
        return branch * keep / (1 - self.drop_path)


# --------------------------------------------------------------------------------------------- released files


def resize_grid(table: Tensor, grid: int, mode: str = "bilinear") -> Tensor:
    """Position embeddings for another number of patches; the row of the class token stays.

    Args:
        table: (1, 1 + old^2, D).
        grid: new patches in a row.
        mode: bilinear (checkpoints of whole models) or bicubic (files of a tower alone), as released.

    Returns:
        (1, 1 + grid^2, D), the same table where the grid is the same.

    Raises:
        ValueError: the table is not of a square grid and a class token.
    """
    old = math.isqrt(table.shape[1] - 1)
    if old**2 + 1 != table.shape[1]:
        raise ValueError(
            f"pos_embed {tuple(table.shape)}: expected (1, 1 + g * g, width), class token and square grid."
        )
    if old == grid:
        return table
    image = table[:, 1:].transpose(1, 2).unflatten(2, (old, old))
    resized = functional.interpolate(image, size=(grid, grid), mode=mode, align_corners=False)
    return torch.cat([table[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)


def resize_patches(weight: Tensor, patch_size: int) -> Tensor:
    """Weights (D, 3, p, p) of the patch convolution for another patch size, bicubic, as the files of a tower
    are read in the release.
    """
    if weight.shape[-1] == patch_size:
        return weight
    return functional.interpolate(weight, size=(patch_size, patch_size), mode="bicubic", align_corners=False)


def is_rotary_table(name: str) -> bool:
    """Whether a stored tensor is a table of rotary positions, which the tower computes for its own grid."""
    return name.endswith((".freqs_cos", ".freqs_sin"))


def tower_state(state: Mapping[str, Tensor], config: EvaConfig) -> dict[str, Tensor]:
    """The vision tower's tensors of a released EVA-CLIP file (`EVA01_CLIP_g_14_psz14_s11B.pt`, ...), for
    `EvaVision.load_state_dict`.

    The text tower, `logit_scale` and rotary tables are left out; positions are resized (bicubic) where the
    image size differs, and with them the patches where their size differs.

    Args:
        state: plain names -> tensors: `visual.*`, or those of the tower alone.
        config: the tower to fill.
    """
    names = [name for name in state if name.startswith("visual.")]
    if names:
        state = {name.removeprefix("visual."): state[name] for name in names}
    kept = {name: tensor for name, tensor in state.items() if not is_rotary_table(name)}
    table = kept.get("pos_embed")
    if table is not None and table.shape[1] != config.grid**2 + 1:
        kept["pos_embed"] = resize_grid(table, config.grid, "bicubic")
        kept["patch_embed.proj.weight"] = resize_patches(kept["patch_embed.proj.weight"], config.patch_size)
    return kept


@BACKBONES.register("eva_clip")
class EvaClipBackbone(VideoBackbone):
    """Vectors of EVA-CLIP's joint space, such as `eva_clip:EVA01-CLIP-g-14` with
    EVA01_CLIP_g_14_psz14_s11B.pt.
    """

    form = "<tower>"
    mean, std = PIXELS["clip"]

    def build(self, model: str) -> nn.Module:
        tower = EvaVision(eva_config(model))
        self.size = tower.image_size
        return ImageTower(tower, tower.embed)

    def _filled(self, network: nn.Module, weights: str | Path) -> nn.Module:
        state = tower_state(read_state_dict(weights), network.tower.config)
        own = network.tower.state_dict()
        refuse_random(weights, self.name, [key for key in own if key not in state], len(own))
        network.tower.load_state_dict({key: state[key] for key in own})
        return network
