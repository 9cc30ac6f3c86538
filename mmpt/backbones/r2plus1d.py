"""R(2+1)D video backbone (Tran et al. 2018), parameter names of torchvision's `r2plus1d_18`.

Shape letters: B clips, C channels, T frames, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from mmpt.backbones.backbone import VideoBackbone
from mmpt.backbones.resnet import WIDTH, ResidualBlock, blocks_of, draw_weights, stages
from mmpt.registry import BACKBONES

DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


class R2Plus1D(nn.Module):
    """Clips (B, 3, T, H, W) -> features.

    Args:
        depth: 18 or 34.
        pool: average the last map into (B, 512); otherwise return the map (B, 512, ceil(T / 8), H / 16, W /
            16).
        width: channels of the first stage; the published networks have 64, and 512 in the last one.
    """

    def __init__(self, depth: int = 18, pool: bool = True, width: int = WIDTH):
        super().__init__()
        n_blocks = blocks_of(self, depth, DEPTHS)
        self.pool = pool
        middle = 45 * width // WIDTH
        self.stem = nn.Sequential(
            nn.Conv3d(3, middle, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False),
            nn.BatchNorm3d(middle),
            nn.ReLU(inplace=True),
            nn.Conv3d(middle, width, (3, 1, 1), 1, (1, 0, 0), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
        )
        for name, stage in stages(n_blocks, BasicBlock, width):
            self.add_module(name, stage)
        self.apply(draw_weights)

    def forward(self, frames: Tensor) -> Tensor:
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(frames)))))
        return x.mean(dim=(2, 3, 4)) if self.pool else x


class BasicBlock(ResidualBlock):
    """Two factorised convolutions and a shortcut; both have as many channels between space and time as a full
    3x3x3 has parameters."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        middle = inputs * outputs * 27 // (inputs * 9 + 3 * outputs)
        self.conv1 = nn.Sequential(
            _factorised(inputs, middle, outputs, stride), nn.BatchNorm3d(outputs), nn.ReLU(inplace=True)
        )
        self.conv2 = nn.Sequential(_factorised(outputs, middle, outputs, 1), nn.BatchNorm3d(outputs))
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv3d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm3d(outputs)
            )

    def body(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x))


def _factorised(inputs: int, middle: int, outputs: int, stride: int) -> nn.Sequential:
    """(1, 3, 3) over space, then (3, 1, 1) over time."""
    return nn.Sequential(
        nn.Conv3d(inputs, middle, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False),
        nn.BatchNorm3d(middle),
        nn.ReLU(inplace=True),
        nn.Conv3d(middle, outputs, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False),
    )


@BACKBONES.register("r2plus1d")
class R2Plus1DBackbone(VideoBackbone):
    """R(2+1)D-18 of GDT and STiCA, 512-d."""

    fps, size, mean, std, cpu_clips = 16, 112, 0.45, 0.225, 4  # mean and deviation of Kinetics
    prefix = "video_network.base."
    pools = True

    def build(self, model: str) -> nn.Module:
        return R2Plus1D(pool=self.pools)

    def _sized(self, network: nn.Module, found: Mapping[str, Tensor]) -> nn.Module:
        """Toys have smaller widths."""
        width = len(found.get("stem.3.weight", ())) or WIDTH
        return network if width == WIDTH else R2Plus1D(pool=self.pools, width=width)


class R2Plus1DMaps(R2Plus1DBackbone):
    """The same network without pooling: frames (n, 3, FPS, S, S) -> maps (n, 512, FPS / 8, S / 16, S /
    16)."""

    pools = False
