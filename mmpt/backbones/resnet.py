"""What the residual networks over frames and over spectrograms share; parameter names are torchvision's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import Tensor, nn

WIDTH = 64  # channels of the first stage of the published networks; each further stage has twice as many


class ResidualBlock(nn.Module):
    """ReLU(body(x) + shortcut). A subclass builds its body, and `downsample` where the shortcut has to change
    shape."""

    def __init__(self):
        super().__init__()
        self.downsample: nn.Module | None = None

    def body(self, x: Tensor) -> Tensor:
        """Two convolutions with what belongs to them."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.body(x).add_(shortcut).relu_()


def stages(
    n_blocks: Sequence[int], block: Callable[[int, int, int], nn.Module], first_width: int = WIDTH
) -> Iterator[tuple[str, nn.Sequential]]:
    """`layer1` .. `layer4`, each after the first of half the resolution.

    Args:
        n_blocks: blocks of each stage.
        block: builds one from channels in, channels out, stride.
        first_width: channels of the first stage.
    """
    inputs = first_width
    for number, n in enumerate(n_blocks, start=1):
        width = first_width * 2 ** (number - 1)
        first = block(inputs, width, 1 if number == 1 else 2)
        yield f"layer{number}", nn.Sequential(first, *(block(width, width, 1) for _ in range(n - 1)))
        inputs = width


def blocks_of(network: nn.Module, depth: int, depths: Mapping[int, Sequence[int]]) -> Sequence[int]:
    """Blocks per stage of a network of `depth` layers."""
    if depth not in depths:
        raise ValueError(f"{type(network).__name__} has depths {sorted(depths)}, got {depth}.")
    return depths[depth]


def draw_weights(layer: nn.Module) -> None:
    """Kaiming's normal distribution for convolutions; for `Module.apply`."""
    if isinstance(layer, (nn.Conv2d, nn.Conv3d)):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
