"""The networks of GDT and STiCA over raw clips, with the parameter names of their published checkpoints.

Shape letters: B clips, T frames, H, W pixels, M mel filters, A spectrogram frames, N words, D = 256.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn import functional

from mmpt.backbones.audio import AudioResNet
from mmpt.backbones.r2plus1d import R2Plus1D
from mmpt.backbones.words import WordEncoder
from mmpt.modules.heads import ProjectionHead
from mmpt.modules.pooling import AttentionPool, CropEmbedding
from mmpt.ops.crops import Crop

WIDTH = 512  # of the video and audio backbones
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
    """

    def __init__(self, video_depth: int = 18, audio_depth: int = 9):
        super().__init__()
        self.video_network = _base(R2Plus1D(video_depth))
        self.audio_network = _base(AudioResNet(audio_depth))
        self.mlp_v = ProjectionHead(WIDTH)
        self.mlp_a = ProjectionHead(WIDTH)

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
    """

    def __init__(self, n_words: int = 66250, video_depth: int = 18):
        super().__init__()
        self.video_network = _base(R2Plus1D(video_depth))
        self.text_network = WordEncoder(n_words)
        self.mlp_v = ProjectionHead(WIDTH)
        self.mlp_t = ProjectionHead(WORD_WIDTH)

    def forward(self, video: Tensor, words: Tensor) -> dict[str, Tensor]:
        """Clips (B, 3, T, H, W) and word ids (B, N) -> `pooled_video`, `pooled_text` (B, D) unit rows."""
        return {
            "pooled_video": _unit(self.mlp_v(self.video_network["base"](video))),
            "pooled_text": _unit(self.mlp_t(self.text_network(words))),
        }


class STiCANetwork(nn.Module):
    """Video, crops of its feature map, and audio in one space.

    Args:
        pool_layers: transformer layers over time steps; 0: plain mean.
        video_depth, audio_depth: as in `AVGDT`.
    """

    def __init__(self, pool_layers: int = 2, video_depth: int = 18, audio_depth: int = 9):
        super().__init__()
        self.video_network = _base(R2Plus1D(video_depth, pool=False))
        self.audio_network = _base(AudioResNet(audio_depth))
        self.video_pooling = nn.ModuleDict({"2": AttentionPool(WIDTH, pool_layers)})
        self.mlp_v = ProjectionHead(WIDTH)
        self.mlp_a = ProjectionHead(WIDTH)

    def forward(
        self, video: Tensor, audio: Tensor, crops: Iterable[Crop] = (), version: int = 2
    ) -> dict[str, Tensor]:
        """Clips, spectrograms and crops of the feature map.

        Args:
            video: (B, 3, T, H, W).
            audio: (B, 1, M, A).
            crops: boxes of the map, which has ceil(T / 8) steps of H / 16 x W / 16 positions.
            version: 1 or 2, which augmented version of the clips this is.

        Returns:
            `pooled_video_<version>`, `pooled_audio` (B, D), and per kind of crop `<kind><version>` (n, B, D),
            unit rows.
        """
        embedding = CropEmbedding(self.video_pooling["2"], self.mlp_v)
        whole, parts = embedding(self.video_network["base"](video), crops, version)
        pooled_audio = _unit(self.mlp_a(self.audio_network["base"](audio)))
        cropped = {kind: _unit(embedded) for kind, embedded in parts.items()}
        return {f"pooled_video_{version}": _unit(whole), "pooled_audio": pooled_audio} | cropped
