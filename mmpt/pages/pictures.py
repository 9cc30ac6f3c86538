"""Thumbnails of videos."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np

from mmpt.media.video import frame_at
from mmpt.utils import optional_import

HEIGHT = 240  # pixels


def thumbnail(file: str | Path, second: float, height: int = HEIGHT) -> bytes:
    """A JPEG of the frame on screen at a second of a video.

    Raises:
        VideoError: the file is missing or cannot be read.
    """
    return jpeg(frame_at(file, second, height))


def inline(picture: bytes) -> str:
    """The address of a picture that stands in the page itself."""
    return f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"


def jpeg(image: np.ndarray) -> bytes:
    """(H, W, 3) uint8 RGB -> a JPEG file."""
    av = optional_import("av", extra="video")
    codec = av.CodecContext.create("mjpeg", "w")
    codec.height, codec.width = image.shape[:2]
    codec.pix_fmt, codec.framerate = "yuvj420p", 1
    frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuvj420p")
    return b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])
