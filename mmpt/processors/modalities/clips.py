"""Raw clips: where they lie in a video, and how GDT, STiCA and action recognition augment them.

Frames are float tensors (T, 3, H, W) in RGB, spectrograms (1, M, A). Every draw holds for a whole clip, so
that motion stays consistent, and comes from a passed generator. Source: GDT (Patrick et al. 2020) and STiCA
(2021), section "data"; where the released code differs by mistake (channel order of gray, fixed blur), the
functions here do what is meant, and take the weights of the released code as an argument.

Letters: T frames, H, W pixels, S pixels of the side of a crop, M mel filters, A spectrogram frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

RGB_WEIGHTS = (0.299, 0.587, 0.114)
SPEC_AUGMENT = {
    "mild": (1, 1, 2, 5),
    "medium": (1, 1, 3, 6),
    "heavy": (2, 2, 3, 6),
}  # bands of filters, of time; their widths below
ASPECTS = (3 / 4, 4 / 3)
CROP_TRIES = 10
BLUR_KERNEL = 11


def grayscale(frames: Tensor, weights: Sequence[float] = RGB_WEIGHTS) -> Tensor:
    """Luminance, (T, 1, H, W).

    Args:
        frames: (T, 3, H, W).
        weights: of the three channels; the released code has those of blue, green, red.
    """
    return (frames * frames.new_tensor(weights)[:, None, None]).sum(dim=1, keepdim=True)


def brightness(frames: Tensor, factor: float) -> Tensor:
    """Blends with black; 1 changes nothing."""
    return frames * factor


def contrast(frames: Tensor, factor: float, weights: Sequence[float] = RGB_WEIGHTS) -> Tensor:
    """Blends each frame with its mean luminance; 1 changes nothing."""
    mean = grayscale(frames, weights).mean(dim=(1, 2, 3), keepdim=True)
    return frames * factor + mean * (1 - factor)


def saturation(frames: Tensor, factor: float, weights: Sequence[float] = RGB_WEIGHTS) -> Tensor:
    """Blends with gray; 1 changes nothing."""
    return frames * factor + grayscale(frames, weights) * (1 - factor)


def colour_jitter(frames: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Brightness, contrast and saturation by factors in 1 +- strength, in random order."""
    changes: tuple[Callable[[Tensor, float], Tensor], ...] = (brightness, contrast, saturation)
    for number in torch.randperm(3, generator=generator).tolist():
        frames = changes[number](frames, 1 + strength * (2 * _uniform(generator) - 1))
    return frames


def gaussian_blur(frames: Tensor, sigma: float, kernel: int = BLUR_KERNEL) -> Tensor:
    """Blurs rows and columns of every frame; the border is mirrored."""
    offsets = torch.arange(kernel, dtype=frames.dtype, device=frames.device) - kernel // 2
    weights = torch.softmax(-(offsets**2) / (2 * sigma**2), dim=0).expand(
        frames.shape[1], 1, 1, -1
    )  # (3, 1, 1, kernel)
    half, n = kernel // 2, frames.shape[1]
    padded = functional.pad(frames, (half, half, half, half), mode="reflect")
    return functional.conv2d(functional.conv2d(padded, weights, groups=n), weights.transpose(2, 3), groups=n)


def uniform_crop(frames: Tensor, size: int, position: int) -> Tensor:
    """Square at one of three places along the longer side, centred on the other.

    Args:
        frames: (..., H, W), no side shorter than `size`.
        size: S.
        position: 0 left or top, 1 centre, 2 right or bottom.
    """
    height, width = frames.shape[-2:]
    if min(height, width) < size or position not in (0, 1, 2):
        what = f"uniform_crop(size={size}, position={position}) of frames {height} x {width}"
        raise ValueError(f"{what}: needs sides >= size, position 0 to 2.")
    top, left = math.ceil((height - size) / 2), math.ceil((width - size) / 2)
    if height > width:
        top = (0, top, height - size)[position]
    else:
        left = (0, left, width - size)[position]
    return frames[..., top : top + size, left : left + size]


def resized_crop(frames: Tensor, top: int, left: int, height: int, width: int, size: int) -> Tensor:
    """A box of every frame, scaled bilinearly to (T, 3, S, S)."""
    box = frames[..., top : top + height, left : left + width]
    return functional.interpolate(box, (size, size), mode="bilinear", align_corners=False)


def scale_short_side(frames: Tensor, size: int) -> Tensor:
    """Bilinear, aspect kept: the shorter side becomes `size`."""
    height, width = frames.shape[-2:]
    scale = size / min(height, width)
    target = (max(size, round(height * scale)), max(size, round(width * scale)))
    return functional.interpolate(frames, target, mode="bilinear", align_corners=False)


def draw_box(
    height: int, width: int, area: tuple[float, float], generator: torch.Generator
) -> tuple[int, int, int, int]:
    """A random box (top, left, height, width) with a share of the area in `area` and an aspect between 3:4
    and 4:3.

    Ten tries; then the largest centred box whose aspect is allowed.
    """
    low, high = (math.log(aspect) for aspect in ASPECTS)
    for _ in range(CROP_TRIES):
        target = height * width * (area[0] + (area[1] - area[0]) * _uniform(generator))
        aspect = math.exp(low + (high - low) * _uniform(generator))
        box_width, box_height = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            return (
                _offset(height, box_height, generator),
                _offset(width, box_width, generator),
                box_height,
                box_width,
            )
    box_width, box_height = min(width, round(height * ASPECTS[1])), min(height, round(width / ASPECTS[0]))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def spec_augment(spectrogram: Tensor, strength: str, generator: torch.Generator) -> Tensor:
    """Sets random bands of filters and of time to 0.

    Args:
        spectrogram: (..., M, A), normalised, so that 0 is the mean.
        strength: mild, medium or heavy.
        generator: source of the bands.
    """
    if strength not in SPEC_AUGMENT:
        raise ValueError(f"spec_augment strength {strength!r}: expected {', '.join(SPEC_AUGMENT)}.")
    n_filter_bands, n_time_bands, filter_width, time_width = SPEC_AUGMENT[strength]
    kept = torch.ones(spectrogram.shape[-2:], dtype=torch.bool)
    for bands, width, axis in ((n_filter_bands, filter_width, 0), (n_time_bands, time_width, 1)):
        for _ in range(bands):
            length = int(width * _uniform(generator))
            kept.narrow(axis, _offset(kept.shape[axis], length, generator), length).fill_(False)
    return spectrogram * kept.to(spectrogram.device)


@dataclass(frozen=True)
class ClipAugment:
    """Training augmentation of a clip. The defaults are GDT's; `ClipAugment.stica()` gives the other
    published setting.

    Attributes:
        size: S.
        scale: None: a box of random area is scaled to S; otherwise the shorter side is drawn from this range,
            then S x S cropped.
        area: share of the area of such a box.
        flip, jitter, gray, blur: probabilities.
        jitter_strength: largest change of brightness, contrast and saturation.
        blur_sigma: range of the blur, pixels.
        mean, std: subtracted and divided out.
        normalise_first: change colours after that step instead of before, as STiCA does.
    """

    size: int = 112
    scale: tuple[int, int] | None = (128, 160)
    area: tuple[float, float] = (0.14, 1.0)
    flip: float = 0.5
    jitter: float = 1.0
    gray: float = 0.0
    blur: float = 0.0
    jitter_strength: float = 0.4
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    mean: float = 0.45
    std: float = 0.225
    normalise_first: bool = False

    @classmethod
    def stica(cls, **changes: Any) -> ClipAugment:
        """The setting of STiCA and of its fine-tuning."""
        return cls(
            **({"scale": None, "jitter": 0.8, "gray": 0.2, "blur": 0.5, "normalise_first": True} | changes)
        )

    def __call__(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        """uint8 RGB frames (T, H, W, 3) -> (3, T, S, S) float32."""
        clip = frames.permute(0, 3, 1, 2) / 255
        clip = self._normalise(clip) if self.normalise_first else clip
        clip = self._cut(clip, generator)
        clip = clip.flip(-1) if _uniform(generator) < self.flip else clip
        clip = (
            colour_jitter(clip, self.jitter_strength, generator)
            if _uniform(generator) < self.jitter
            else clip
        )
        clip = grayscale(clip).expand_as(clip) if _uniform(generator) < self.gray else clip
        if _uniform(generator) < self.blur:
            low, high = self.blur_sigma
            clip = gaussian_blur(clip, low + (high - low) * _uniform(generator))
        clip = clip if self.normalise_first else self._normalise(clip)
        return clip.transpose(0, 1).contiguous()

    def views(self, frames: Tensor) -> Tensor:
        """The three test crops of a clip: uint8 (T, H, W, 3) -> (3, 3, T, S, S), crops first."""
        clip = self._normalise(scale_short_side(frames.permute(0, 3, 1, 2) / 255, self.size))
        return torch.stack([uniform_crop(clip, self.size, position).transpose(0, 1) for position in range(3)])

    def released_views(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        """The same as the released code makes them: each crop of a clip scaled and coloured at random."""
        low, high = self.size, self.size * 5 / 4  # 128 to 160 pixels for crops of 128
        crops = []
        for position in range(3):
            clip = self._normalise(frames.permute(0, 3, 1, 2) / 255)
            clip = scale_short_side(clip, round(low + (high - low) * _uniform(generator)))
            clip = uniform_crop(clip, self.size, position)
            jitters = _uniform(generator) < self.jitter
            clip = colour_jitter(clip, self.jitter_strength, generator) if jitters else clip
            crops.append(clip.transpose(0, 1))
        return torch.stack(crops)

    def _normalise(self, clip: Tensor) -> Tensor:
        return (clip - self.mean) / self.std

    def _cut(self, clip: Tensor, generator: torch.Generator) -> Tensor:
        if self.scale is None:
            height, width = clip.shape[-2:]
            return resized_crop(clip, *draw_box(height, width, self.area, generator), self.size)
        low, high = self.scale
        clip = scale_short_side(clip, round(low + (high - low) * _uniform(generator)))
        top, left = (_offset(side, self.size, generator) for side in clip.shape[-2:])
        return clip[..., top : top + self.size, left : left + self.size]


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def _offset(side: int, length: int, generator: torch.Generator) -> int:
    """Where a stretch of `length` starts, every valid place equally likely."""
    return int(torch.randint(side - length + 1, (), generator=generator))
