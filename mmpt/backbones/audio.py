"""Audio backbone: a 2-D ResNet over log-mel spectrograms, parameter names of torchvision's ResNet without its
classifier.

Shape letters: B clips, C channels, M mel filters, T spectrogram frames.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from mmpt.backbones.backbone import AudioBackbone
from mmpt.backbones.resnet import WIDTH, ResidualBlock, blocks_of, draw_weights, stages
from mmpt.media.audio import spectrogram
from mmpt.registry import BACKBONES

DEPTHS = {9: (1, 1, 1, 1), 18: (2, 2, 2, 2)}


class AudioResNet(nn.Module):
    """Spectrograms (B, 1, M, T) -> (B, 512).

    Args:
        depth: 9 (one block per stage) or 18.
        width: channels of the first stage; the published networks have 64, and 512 in the last one.
    """

    def __init__(self, depth: int = 9, width: int = WIDTH):
        super().__init__()
        n_blocks = blocks_of(self, depth, DEPTHS)
        self.conv1 = nn.Conv2d(1, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        for name, stage in stages(n_blocks, BasicBlock, width):
            self.add_module(name, stage)
        self.apply(draw_weights)

    def forward(self, spectrogram: Tensor) -> Tensor:
        x = self.maxpool(self.bn1(self.conv1(spectrogram)).relu())
        return self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean(dim=(2, 3))


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def body(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))


@BACKBONES.register("resnet9")
class ResNet9Backbone(AudioBackbone):
    """Audio ResNet-9 of GDT and STiCA over log-mel spectrograms, 512-d."""

    sample_rate = 24000
    prefix = "audio_network.base."
    n_filters = 40

    def build(self, model: str) -> nn.Module:
        return AudioResNet()

    def prepare(self, waves: np.ndarray) -> np.ndarray:
        return np.stack(
            [
                spectrogram(wave, self.sample_rate, n_seconds=self.window_s, n_filters=self.n_filters)
                for wave in waves
            ]
        )
