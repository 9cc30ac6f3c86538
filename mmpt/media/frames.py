"""Which frames of a video a model sees, and how their pixels are cut and scaled for it.

Shape letters: F frames, H, W pixels as decoded, S pixels of the square that a model reads.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

CROP_AREA = (0.8, 1.0)  # share of the picture that a training crop covers
CROP_TRIES = 10


class PixelStatistics(NamedTuple):
    """Mean and deviation of red, green and blue in [0, 1]."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


PIXELS = {
    "clip": PixelStatistics((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "imagenet": PixelStatistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "siglip": PixelStatistics((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
TRANSFORMS = ("none", "crop_flip")


def chunk_positions(n: int, n_chunks: int, rng: np.random.Generator | None = None) -> np.ndarray:
    """One of each of `n_chunks` nearly equal chunks of range(n), the first ones larger; where there are
    fewer, the last is repeated.

    Args:
        n: at least 1.
        n_chunks: positions to take.
        rng: draws within each chunk; None: its middle (of an even number the earlier one).

    Returns:
        (n_chunks,) in order.
    """
    if n < 1:
        raise ValueError("chunk_positions: there is nothing to choose from.")
    sizes = n // n_chunks + (np.arange(n_chunks) < n % n_chunks)
    firsts = np.cumsum(sizes) - sizes
    inside = (sizes + 1) // 2 - 1 if rng is None else rng.integers(np.maximum(sizes, 1))
    return np.minimum(firsts + inside, n - 1)


def model_pixels(
    frames: np.ndarray,
    size: int,
    transform: str = "none",
    statistics: str = "clip",
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Frames as an image tower reads them.

    Args:
        frames: (F, H, W, 3) uint8 RGB.
        size: S.
        transform: none = scaled to the square whatever their shape; crop_flip = a square cut out: in training
            of 0.8 to 1 of the area at a random place, mirrored every other time, the same for all frames;
            otherwise the centre of the shorter side.
        statistics: clip or imagenet, what the tower was trained with.
        rng: of the training draws; None: no training.

    Returns:
        (F, 3, S, S) float32, standardised. Scaling is bilinear without low-pass, as the released models saw
        their frames.

    Raises:
        ValueError: unknown transform or statistics, or frames of another kind.
    """
    if frames.ndim != 4 or frames.shape[3] != 3:
        raise ValueError(f"model_pixels reads RGB frames (F, H, W, 3), got shape {frames.shape}.")
    for name, value, known in ("transform", transform, TRANSFORMS), ("statistics", statistics, tuple(PIXELS)):
        if value not in known:
            raise ValueError(f"{name}={value!r}: expected one of {', '.join(known)}.")
    if transform == "none":
        scaled = resize(frames, size, size)
    elif rng is None:
        scaled = _centre(frames, size)
    else:
        top, left, side = _training_square(frames.shape[1], frames.shape[2], rng)
        scaled = resize(frames[:, top : top + side, left : left + side], size, size)
        scaled = scaled[:, :, ::-1] if rng.random() < 0.5 else scaled
    mean, std = PIXELS[statistics]
    return np.ascontiguousarray(((scaled / 255 - mean) / std).transpose(0, 3, 1, 2), dtype=np.float32)


def resize(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear, pixel centres aligned, no low-pass: (F, H, W, 3) -> (F, height, width, 3) float64."""
    low, high, share = _neighbours(frames.shape[1], height)
    share = share[:, None, None]
    rows = frames[:, low] * (1 - share) + frames[:, high] * share
    low, high, share = _neighbours(frames.shape[2], width)
    share = share[:, None]
    return rows[:, :, low] * (1 - share) + rows[:, :, high] * share


def _neighbours(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two old places that each new one lies between, and the share of the second."""
    place = np.maximum((np.arange(new) + 0.5) * old / new - 0.5, 0.0)
    low = np.minimum(place.astype(np.int64), old - 1)
    return low, np.minimum(low + 1, old - 1), place - low


def _centre(frames: np.ndarray, size: int) -> np.ndarray:
    """The shorter side scaled to `size`, the centre of the longer one."""
    height, width = frames.shape[1:3]
    short = min(height, width)
    height, width = int(size * height / short), int(size * width / short)
    top, left = round((height - size) / 2), round((width - size) / 2)
    return resize(frames, height, width)[:, top : top + size, left : left + size]


def _training_square(height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int]:
    """Top, left and side of a square of 0.8 to 1 of the area; in a picture too long for one, the square in
    its middle.
    """
    for _ in range(CROP_TRIES):
        side = round(math.sqrt(height * width * rng.uniform(*CROP_AREA)))
        if 0 < side <= min(height, width):
            return int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1)), side
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side
