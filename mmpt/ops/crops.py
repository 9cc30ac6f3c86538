"""Crops of feature maps in time and space, as STiCA makes many cheap views of one encoded clip.

Shapes: B clips, C channels, T time steps, H x W positions of a map (B, C, T, H, W); sequences (B, T, C)
    without positions.
Source: STiCA (arXiv 2103.10211), with the off-by-one of the released sampler corrected.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Size = float | int


class Crop(NamedTuple):
    """A box of a feature map; half-open ranges of rows of time, height and width."""

    kind: str  # sl, ss: large and small in space; tl, ts: large and small in time
    t0: int | Tensor  # or (B,), a window of each clip
    t1: int | Tensor
    h0: int = 0
    h1: int = 1
    w0: int = 0
    w1: int = 1

    def apply(self, features: Tensor) -> Tensor:
        """The crop of a map (B, C, T, H, W), or of a sequence (B, T, C); the same window of all clips."""
        if features.dim() == 3:
            return features[:, self.t0 : self.t1]
        return features[:, :, self.t0 : self.t1, self.h0 : self.h1, self.w0 : self.w1]

    def tokens(self, features: Tensor, steps: int) -> Tensor:
        """The crop stretched to (B, steps, C), its positions averaged."""
        if isinstance(self.t1, int):
            return map_tokens(self.apply(features), steps)
        whole = features if features.dim() == 3 else features[..., self.h0 : self.h1, self.w0 : self.w1]
        return stretched_windows(map_tokens(whole), self.t0, self.t1, steps)


@dataclass(frozen=True, kw_only=True)
class FeatureCrop:
    """How many crops of which size.

    Sizes are fractions of the axis (rounded half up, at least 1) or whole numbers of steps: 6/7 and 4/7 of a
    7 x 7 map are 6 and 4; 3/4 and 1/2 of 8 steps are 6 and 4. The released code keeps 6 and 4 for longer
    clips, too: state whole numbers for that.

    Attributes:
        compat: never draw the last valid offset, as the released code does.
    """

    num_large_crops: int = 2
    num_small_crops: int = 4
    num_large_tcrops: int = 2
    num_small_tcrops: int = 1
    spatial_large: Size = 6 / 7
    spatial_small: Size = 4 / 7
    temporal_large: Size = 3 / 4
    temporal_small: Size = 1 / 2
    compat: bool = False

    def sample(self, shape: tuple[int | Tensor, ...], generator: torch.Generator | None = None) -> list[Crop]:
        """Draws the crops of one version of a batch.

        Args:
            shape: (T, H, W) of the map, or (T,) of a sequence. With padding, T is the shortest valid one of
                the batch, or a tensor (B,) of the lengths: every clip then has windows in time of its own, as
                long as its length says. Boxes in space are shared.
            generator: source of the offsets (a CPU generator).

        Raises:
            ValueError: spatial crops of a sequence, or a window larger than its axis.
        """
        spatial = self.num_small_crops > 0 or self.num_large_crops > 1
        if spatial and len(shape) == 1:
            raise ValueError(
                "spatial crops need feature maps (T, H, W), but the features are sequences: set "
                "num_large_crops and num_small_crops to 0."
            )
        steps, height, width = (*shape, 1, 1)[:3]
        crops = []
        for kind, number, size in (
            ("sl", self.num_large_crops, self.spatial_large),
            ("ss", self.num_small_crops, self.spatial_small),
        ):
            for _ in range(number if spatial else 0):
                rows, columns = self._window(height, size, generator), self._window(width, size, generator)
                crops.append(Crop(kind, 0 * steps, steps, *rows, *columns))
        temporal = self.num_small_tcrops > 0 or self.num_large_tcrops > 1
        for kind, number, size in (
            ("tl", self.num_large_tcrops, self.temporal_large),
            ("ts", self.num_small_tcrops, self.temporal_small),
        ):
            for _ in range(number if temporal else 0):
                crops.append(Crop(kind, *self._window(steps, size, generator), 0, height, 0, width))
        return crops

    def _window(
        self, length: int | Tensor, size: Size, generator: torch.Generator | None
    ) -> tuple[int | Tensor, int | Tensor]:
        one_more = 0 if self.compat else 1
        if isinstance(length, Tensor):
            windows = window_sizes(length, size)
            draw = torch.rand(len(length), generator=generator, dtype=torch.float64).to(length.device)
            starts = (draw * (length - windows + one_more).clamp_min(1)).long()
            return starts, starts + windows
        window = window_size(length, size)
        start = int(torch.randint(max(1, length - window + one_more), (), generator=generator))
        return start, start + window


def window_sizes(lengths: Tensor, size: Size) -> Tensor:
    """`window_size` of each length (B,); a clip shorter than a whole number of steps gives all of it."""
    if isinstance(size, int):
        return lengths.clamp_max(size)
    return (size * lengths.double() + 0.5).long().clamp_min(1).minimum(lengths)


def window_size(length: int, size: Size) -> int:
    """Steps of a window on an axis: a fraction rounded half up, or a whole number.

    Raises:
        ValueError: the window does not fit.
    """
    window = size if isinstance(size, int) else max(1, math.floor(size * length + 0.5))
    if not 1 <= window <= length:
        raise ValueError(
            f"a crop of {window} steps does not fit into an axis of {length}; state a smaller number or a "
            "fraction below 1."
        )
    return window


def map_tokens(features: Tensor, steps: int | None = None) -> Tensor:
    """Maps (B, C, T, H, W), or sequences (B, T, C), as tokens (B, steps, C): mean over positions, adaptive
    mean to `steps` (default T)."""
    tokens = features.mean((3, 4)) if features.dim() == 5 else features.transpose(1, 2)  # (B, C, T)
    if steps is not None and steps != tokens.shape[2]:
        tokens = F.adaptive_avg_pool1d(tokens, steps)
    return tokens.transpose(1, 2)


def stretched_windows(sequences: Tensor, start: Tensor, end: Tensor, steps: int) -> Tensor:
    """A window [start, end) (B,) of each sequence (B, T, C) as adaptive means, (B, steps, C): what
    `map_tokens` makes of it alone."""
    step, length = torch.arange(steps, device=sequences.device), (end - start)[:, None]
    first, last = (
        start[:, None] + step * length // steps,
        start[:, None] - (-(step + 1) * length // steps),
    )  # (B, steps)
    time = torch.arange(sequences.shape[1], device=sequences.device)
    inside = (time >= first[..., None]) & (time < last[..., None])  # (B, steps, T)
    return inside.to(sequences.dtype) @ sequences / (last - first)[..., None]
