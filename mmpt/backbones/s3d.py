"""S3D-G video features (Xie et al. 2018) with the text branch of MIL-NCE (Miech et al. 2020), names of the
public HowTo100M weights.

Shape letters: B clips, C channels, T frames, H, W pixels, N words.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmpt.backbones.backbone import VideoBackbone
from mmpt.backbones.words import WordEncoder
from mmpt.checkpoints.weights import load_weights
from mmpt.registry import BACKBONES
from mmpt.utils.vocabulary import LOWER_CASE_WORDS, Vocabulary

# name -> widths: 1x1 branch; 1x1 then separable; 1x1 then separable; pool then 1x1
MIXED = {
    "mixed_3b": (64, 96, 128, 16, 32, 32),
    "mixed_3c": (128, 128, 192, 32, 96, 64),
    "mixed_4b": (192, 96, 208, 16, 48, 64),
    "mixed_4c": (160, 112, 224, 24, 64, 64),
    "mixed_4d": (128, 128, 256, 24, 64, 64),
    "mixed_4e": (112, 144, 288, 32, 64, 64),
    "mixed_4f": (256, 160, 320, 32, 128, 128),
    "mixed_5b": (256, 160, 320, 32, 128, 128),
    "mixed_5c": (384, 192, 384, 48, 128, 128),
}
STAGES = (
    (((1, 3, 3), (1, 2, 2)), ("mixed_3b", "mixed_3c")),
    (((3, 3, 3), (2, 2, 2)), ("mixed_4b", "mixed_4c", "mixed_4d", "mixed_4e", "mixed_4f")),
    (((2, 2, 2), (2, 2, 2)), ("mixed_5b", "mixed_5c")),
)
MAX_WORDS = 16


class ConvBlock(nn.Module):
    """Convolution, BatchNorm, ReLU; a separable one runs over space first and then over time."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, int, int] = (1, 1, 1),
        padding: tuple[int, int, int] = (0, 0, 0),
    ):
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, outputs, kernel, padding=padding, bias=False)
        self.bn1 = nn.BatchNorm3d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn1(self.conv1(x)), inplace=True)


class SeparableConv(ConvBlock):
    """(1, k, k) then (k, 1, 1) with k = 3."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, (1, 3, 3), (0, 1, 1))
        self.conv2 = nn.Conv3d(outputs, outputs, (3, 1, 1), padding=(1, 0, 0), bias=False)
        self.bn2 = nn.BatchNorm3d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn2(self.conv2(super().forward(x))), inplace=True)


class SelfGating(nn.Module):
    """Scales each channel by a sigmoid of all channels' means: (B, C, T, H, W) -> the same."""

    def __init__(self, channels: int):
        super().__init__()
        self.fc = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.sigmoid(self.fc(x.mean(dim=(2, 3, 4))))
        return weights[:, :, None, None, None] * x


class MixedBlock(nn.Module):
    """Four gated branches side by side."""

    def __init__(self, inputs: int, b0: int, b1_a: int, b1_b: int, b2_a: int, b2_b: int, b3: int):
        super().__init__()
        self.conv_b0 = ConvBlock(inputs, b0)
        self.conv_b1_a = ConvBlock(inputs, b1_a)
        self.conv_b1_b = SeparableConv(b1_a, b1_b)
        self.conv_b2_a = ConvBlock(inputs, b2_a)
        self.conv_b2_b = SeparableConv(b2_a, b2_b)
        self.conv_b3_b = ConvBlock(inputs, b3)
        self.gating_b0, self.gating_b1 = SelfGating(b0), SelfGating(b1_b)
        self.gating_b2, self.gating_b3 = SelfGating(b2_b), SelfGating(b3)
        self.out_channels = b0 + b1_b + b2_b + b3

    def forward(self, x: Tensor) -> Tensor:
        branches = [
            self.gating_b0(self.conv_b0(x)),
            self.gating_b1(self.conv_b1_b(self.conv_b1_a(x))),
            self.gating_b2(self.conv_b2_b(self.conv_b2_a(x))),
            self.gating_b3(self.conv_b3_b(same_max_pool(x, (3, 3, 3), (1, 1, 1)))),
        ]
        return torch.cat(branches, dim=1)


class S3D(nn.Module):
    """S3D-G: a clip of frames -> one vector.

    Args:
        vocabulary: the words of the text branch (`s3d_dict.npy`), or None where only video is encoded.
        embedding_dim: width of the joint video-text space.
        n_words: rows of the word table; the public one has 66250.
    """

    def __init__(self, vocabulary: Vocabulary | None = None, embedding_dim: int = 512, n_words: int = 66250):
        super().__init__()
        self.vocabulary = vocabulary
        self.conv1 = ConvBlock(24, 64, (2, 4, 4), (1, 2, 2))
        self.conv_2b = ConvBlock(64, 64)
        self.conv_2c = SeparableConv(64, 192)
        self.gating = SelfGating(192)
        channels = 192
        for name, widths in MIXED.items():
            block = MixedBlock(channels, *widths)
            self.add_module(name, block)
            channels = block.out_channels
        self.fc = nn.Linear(channels, embedding_dim)
        self.text_module = WordEncoder(n_words, output_dim=embedding_dim)

    @classmethod
    def from_files(cls, weights: str | Path, dictionary: str | Path | None = None) -> S3D:
        """The network in eval mode with `s3d_howto100m.pth` and, for its text branch, `s3d_dict.npy`."""
        words = None if dictionary is None else Vocabulary.from_file(dictionary, MAX_WORDS, LOWER_CASE_WORDS)
        network = cls(words)
        load_weights(network, weights)
        return network.eval()

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        """Encodes clips.

        Args:
            frames: (B, 3, T, H, W), RGB in [0, 1], T, H, W even.

        Returns:
            `mixed_5c` (B, 1024) pooled last map, `video_embedding` (B, embedding_dim).
        """
        _check_frames(frames)
        x = self.conv1(space_to_depth(frames))[:, :, 1:, 1:, 1:]
        x = same_max_pool(x, (1, 3, 3), (1, 2, 2))
        x = self.gating(self.conv_2c(self.conv_2b(x)))
        for (kernel, stride), blocks in STAGES:
            x = same_max_pool(x, kernel, stride)
            for name in blocks:
                x = getattr(self, name)(x)
        pooled = x.mean(dim=(2, 3, 4))
        return {"mixed_5c": pooled, "video_embedding": self.fc(pooled)}

    def encode_text(self, sentences: Sequence[str]) -> Tensor:
        """Sentences -> (len, embedding_dim) in the space of `video_embedding`."""
        if self.vocabulary is None:
            raise ValueError(
                "this S3D was built without a word list; give S3D.from_files(weights, "
                "dictionary='.../s3d_dict.npy')."
            )
        return self.text_module(self.vocabulary.encode(sentences).to(self.fc.weight.device))


def space_to_depth(frames: Tensor) -> Tensor:
    """(B, 3, T, H, W) -> (B, 24, T/2, H/2, W/2): each 2x2x2 cell becomes channels, ordered (dt, dh, dw,
    colour)."""
    b, c, t, h, w = frames.shape
    cells = frames.view(b, c, t // 2, 2, h // 2, 2, w // 2, 2)
    return cells.permute(0, 3, 5, 7, 1, 2, 4, 6).reshape(b, 8 * c, t // 2, h // 2, w // 2)


def same_max_pool(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Max pooling of x >= 0 with TensorFlow's SAME padding: kernel - stride zeros per axis, the odd one
    behind.

    No zero can win, so that only one that makes room for a further window is written: behind an axis that the
    stride does not divide.
    """
    padding = [(k - s) // 2 for k, s in zip(kernel, stride, strict=True)]
    behind = [(k - s) % 2 * (size % s) for k, s, size in zip(kernel, stride, x.shape[2:], strict=True)]
    if any(behind):
        x = functional.pad(
            x, [zeros for n in reversed(behind) for zeros in (0, n)]
        )  # starts at the last axis
    return functional.max_pool3d(x, kernel, stride, padding, ceil_mode=True)


def _check_frames(frames: Tensor) -> None:
    if frames.dim() != 5 or frames.shape[1] != 3 or any(size % 2 or not size for size in frames.shape[2:]):
        raise ValueError(f"S3D reads frames (B, 3, T, H, W) with even T, H, W; got {tuple(frames.shape)}.")


@BACKBONES.register("s3d")
class S3DBackbone(VideoBackbone):
    """S3D-G trained on HowTo100M, 512-d: the features of VideoCLIP, VLM, Norton and TempCLR."""

    fps, size, cpu_clips = 30, 224, 4
    unread = ("text_module.",)
    usual_weights = "pretrained_models/s3d_howto100m.pth"

    def build(self, model: str) -> nn.Module:
        return S3D()
