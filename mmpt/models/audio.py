"""Audio backbone: a 2-D ResNet over log-mel spectrograms, parameter names of torchvision's ResNet without its classifier.

Shape letters: B clips, C channels, M mel filters, T spectrogram frames.
"""

from __future__ import annotations

from torch import Tensor, nn

DEPTHS = {9: (1, 1, 1, 1), 18: (2, 2, 2, 2)}
WIDTHS = (64, 128, 256, 512)


class AudioResNet(nn.Module):
    """Spectrograms (B, 1, M, T) -> (B, 512).

    Args:
        depth: 9 (one block per stage) or 18.
    """

    def __init__(self, depth: int = 9):
        super().__init__()
        if depth not in DEPTHS:
            raise ValueError(f"AudioResNet has depths {sorted(DEPTHS)}, got {depth}.")
        self.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = 64
        for number, (width, n_blocks) in enumerate(zip(WIDTHS, DEPTHS[depth], strict=True), start=1):
            stride = 1 if number == 1 else 2
            blocks = [BasicBlock(inputs, width, stride), *(BasicBlock(width, width) for _ in range(n_blocks - 1))]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            inputs = width
        self.apply(_init)

    def forward(self, spectrogram: Tensor) -> Tensor:
        x = self.maxpool(self.bn1(self.conv1(spectrogram)).relu())
        return self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean(dim=(2, 3))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return (self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())) + shortcut).relu()


def _init(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
