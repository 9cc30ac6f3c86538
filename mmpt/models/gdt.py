"""The networks of GDT and STiCA over raw clips, with the parameter names of their published checkpoints.

Shape letters: B clips, T frames, H, W pixels, M mel filters, A spectrogram frames, N words, C = 8 width, D
= 256.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmpt.backbones.audio import AudioResNet
from mmpt.backbones.r2plus1d import R2Plus1D
from mmpt.backbones.resnet import WIDTH
from mmpt.backbones.words import WordEncoder
from mmpt.modules.heads import ProjectionHead
from mmpt.modules.pooling import AttentionPool, CropEmbedding
from mmpt.ops.crops import Crop, map_tokens

LAST = 8  # channels of the last stage of a backbone, in those of the first
WORD_WIDTH = 2048


def _base(network: nn.Module) -> nn.ModuleDict:
    """Published checkpoints keep backbones one level down."""
    return nn.ModuleDict({"base": network})


def _unit(x: Tensor) -> Tensor:
    return functional.normalize(x, dim=-1)


class AVGDT(nn.Module):
    """Video and audio in one space.

    Args:
        video_depth: layers of the video network, 18 or 34.
        audio_depth: layers of the audio network, 9 or 18.
        width: channels of the first stage of both; the published ones have 64.
    """

    def __init__(self, video_depth: int = 18, audio_depth: int = 9, width: int = WIDTH):
        super().__init__()
        self.video_network = _base(R2Plus1D(video_depth, width=width))
        self.audio_network = _base(AudioResNet(audio_depth, width))
        self.mlp_v = ProjectionHead(LAST * width)
        self.mlp_a = ProjectionHead(LAST * width)

    def video_vectors(self, video: Tensor) -> Tensor:
        """(B, C), before the head: what action recognition reads."""
        return self.video_network["base"](video)

    def forward(self, video: Tensor, audio: Tensor) -> dict[str, Tensor]:
        """Clips (B, 3, T, H, W) and spectrograms (B, 1, M, A) -> `pooled_video`, `pooled_audio` (B, D) unit
        rows."""
        return {
            "pooled_video": _unit(self.mlp_v(self.video_network["base"](video))),
            "pooled_audio": _unit(self.mlp_a(self.audio_network["base"](audio))),
        }


class VidTextGDT(nn.Module):
    """Video and text in one space.

    Args:
        n_words: rows of the word table.
        video_depth: layers of the video network, 18 or 34.
        width: channels of its first stage; the published one has 64.
        word_dim: width of the word table.
    """

    def __init__(self, n_words: int = 66250, video_depth: int = 18, width: int = WIDTH, word_dim: int = 300):
        super().__init__()
        self.video_network = _base(R2Plus1D(video_depth, width=width))
        self.text_network = WordEncoder(n_words, word_dim)
        self.mlp_v = ProjectionHead(LAST * width)
        self.mlp_t = ProjectionHead(WORD_WIDTH)

    def video_vectors(self, video: Tensor) -> Tensor:
        """(B, C), before the head: what action recognition reads."""
        return self.video_network["base"](video)

    def forward(self, video: Tensor, words: Tensor) -> dict[str, Tensor]:
        """Clips (B, 3, T, H, W) and word ids (B, N) -> `pooled_video`, `pooled_text` (B, D) unit rows."""
        return {
            "pooled_video": _unit(self.mlp_v(self.video_network["base"](video))),
            "pooled_text": _unit(self.mlp_t(self.text_network(words))),
        }


class STiCANetwork(nn.Module):
    """Video, crops of its feature map, and audio in one space.

    Args:
        layers: transformer layers over time steps; 0: plain mean.
        video_depth, audio_depth, width: as in `AVGDT`.
        **pooling: heads, ffn, ... of `AttentionPool`.
    """

    def __init__(
        self, layers: int = 2, video_depth: int = 18, audio_depth: int = 9, width: int = WIDTH, **pooling: Any
    ):
        super().__init__()
        self.video_network = _base(R2Plus1D(video_depth, pool=False, width=width))
        self.audio_network = _base(AudioResNet(audio_depth, width))
        self.video_pooling = nn.ModuleDict({"2": AttentionPool(LAST * width, layers, **pooling)})
        self.mlp_v = ProjectionHead(LAST * width)
        self.mlp_a = ProjectionHead(LAST * width)

    def forward(
        self, video: Tensor, audio: Tensor, crops: Iterable[Crop] = (), version: int = 2
    ) -> dict[str, Tensor]:
        """What `video_side` and `audio_side` return of clips (B, 3, T, H, W) and spectrograms (B, 1, M,
        A)."""
        return self.video_side(video, crops, version) | self.audio_side(audio)

    def video_side(
        self, video: Tensor, crops: Iterable[Crop] | Callable[[torch.Size], Iterable[Crop]], version: int
    ) -> dict[str, Tensor]:
        """Clips, whole and by crops of their feature map.

        Args:
            video: (B, 3, T, H, W).
            crops: boxes of the map, which has ceil(T / 8) steps of H / 16 x W / 16 positions; or what draws
                them for a map of a shape.
            version: 1 or 2, which augmented version of the clips this is.

        Returns:
            `pooled_video_<version>` (B, D), and per kind of crop `<kind><version>` (n, B, D), unit rows.
        """
        features = self.video_network["base"](video)
        drawn = crops(features.shape[2:]) if callable(crops) else crops
        whole, parts = CropEmbedding(self.video_pooling["2"], self.mlp_v)(features, drawn, version)
        return {f"pooled_video_{version}": _unit(whole)} | {kind: _unit(part) for kind, part in parts.items()}

    def audio_side(self, audio: Tensor) -> dict[str, Tensor]:
        """`pooled_audio` (B, D) unit rows of spectrograms (B, 1, M, A)."""
        return {"pooled_audio": _unit(self.mlp_a(self.audio_network["base"](audio)))}

    def video_vectors(self, video: Tensor) -> Tensor:
        """(B, C), before the head: what action recognition reads."""
        return self.video_pooling["2"](map_tokens(self.video_network["base"](video)))
