"""Decoding videos: frames chosen by time stamp, in bounded memory.

PyAV decodes; torchcodec does where asked to. Both show the same frames, as the times are chosen here; pixels differ by rounding, because
PyAV scales in YUV and torchcodec hands out RGB.

Letters: n seconds, FPS frames per second, S pixels of the cropped side.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.utils.optional import optional_import


TOLERANCE_S = 1e-6  # a frame due at the asked time counts as shown
FRAMES_PER_REQUEST = 32  # of torchcodec, at full size


class VideoError(ValueError):
    """A video file cannot be used; the message says which and why."""


@dataclass(frozen=True)
class VideoInfo:
    """What the head of a file says.

    Attributes:
        duration_s: seconds, 0 where the file does not say.
        fps: mean frames per second, 0 where the file does not say.
        width, height: pixels as stored, before any rotation.
        has_audio: there is an audio track.
    """

    duration_s: float
    fps: float
    width: int
    height: int
    has_audio: bool


def probe(path: str | Path) -> VideoInfo:
    """Reads the head of a video file.

    Raises:
        VideoError: it cannot be opened, or holds no video.
    """
    with open_video(path) as (container, stream):
        duration = container.duration or 0
        return VideoInfo(duration / 1e6, float(stream.average_rate or 0), stream.width, stream.height, bool(container.streams.audio))


def read_seconds(
    path: str | Path, fps: int = 30, size: int = 224, chunk_s: int = 4, decoder: str = "pyav", n_threads: int = 0
) -> Iterator[np.ndarray]:
    """A video second by second.

    Frame k of second s is the one on screen at s + k / fps, counted from the first frame, whatever the frame rate of the file and
    however it varies. The shorter side is scaled to `size`, the centre cropped, a stored rotation applied.

    Args:
        path: the file.
        fps: frames per second to take.
        size: pixels of the square.
        chunk_s: seconds per yielded array; the memory in use does not depend on the length of the video.
        decoder: "pyav", or "torchcodec" (extra `torchcodec`, and FFmpeg on the system).
        n_threads: that decode this one file; 0: as many as there are cores.

    Yields:
        (n <= chunk_s, FPS, S, S, 3) uint8 RGB; the last second is filled up with black frames.

    Raises:
        VideoError: the file is missing, damaged, or holds no frames.
    """
    if decoder not in ("pyav", "torchcodec"):
        raise ValueError(f"decoder={decoder!r}: expected pyav or torchcodec.")
    sampled = (_sampled if decoder == "pyav" else _sampled_by_torchcodec)(path, fps, size, n_threads)
    while frames := list(itertools.islice(sampled, chunk_s * fps)):
        frames += [np.zeros_like(frames[0])] * (-len(frames) % fps)
        yield np.stack(frames).reshape(-1, fps, size, size, 3)


def frame_at(path: str | Path, time_s: float, height: int = 120) -> np.ndarray:
    """The frame on screen at a time counted from the first frame, upright and whole: (height, width, 3) uint8 RGB.

    Decodes from the key frame before, so that it is quick anywhere in a long file. A time past the end gives the last frame.

    Raises:
        VideoError: the file is missing, damaged, or holds no frames.
    """
    with open_video(path) as (container, stream):
        start = float((stream.start_time or 0) * stream.time_base)
        container.seek(max(0, int((start + time_s) / stream.time_base)), stream=stream)
        shown = None
        for frame in container.decode(stream):
            if shown is not None and frame.time is not None and frame.time > start + time_s + TOLERANCE_S:
                break
            shown = frame
        if shown is None:
            raise VideoError(f"{path}: holds no frames at {time_s:g} s.")
        lying = shown.rotation % 180 != 0  # then the stored width becomes the height
        scale = height / (shown.width if lying else shown.height)
        image = shown.reformat(max(1, round(shown.width * scale)), max(1, round(shown.height * scale)), format="rgb24").to_ndarray()
        return _upright(image, shown)


@contextmanager
def open_video(path: str | Path, n_threads: int = 0) -> Iterator[tuple[Any, Any]]:
    """Container and video stream of a file; decoding errors inside the block become `VideoError`."""
    av = optional_import("av", extra="video")
    if not Path(path).is_file():
        raise VideoError(f"{path}: no such file.")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise VideoError(f"{path}: holds no video stream.")
            stream = container.streams.best("video")  # of several, the one that players choose; never a cover picture
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = n_threads
            yield container, stream
    except av.error.FFmpegError as error:
        raise VideoError(f"{path}: damaged or not a video ({error.strerror}).") from error


def _sampled(path: str | Path, fps: int, size: int, n_threads: int) -> Iterator[np.ndarray]:
    """The frame on screen at 0, 1 / fps, 2 / fps, ..., (S, S, 3) each."""
    with open_video(path, n_threads) as (container, stream):
        step = 1 / fps
        first = shown = image = None
        count = 0
        for frame in container.decode(stream):
            if frame.time is None:
                raise VideoError(f"{path}: frames carry no time stamps.")
            first = frame.time if first is None else first
            while shown is not None and count * step < frame.time - first - TOLERANCE_S:
                image = _square(shown, size) if image is None else image
                count += 1
                yield image
            shown, image = frame, None
        if shown is None:
            raise VideoError(f"{path}: holds no frames.")
        end = shown.time - first + _shown_for(shown, stream, step)
        image = _square(shown, size)
        while count * step < end - TOLERANCE_S:
            count += 1
            yield image


def _sampled_by_torchcodec(path: str | Path, fps: int, size: int, n_threads: int) -> Iterator[np.ndarray]:
    """The same times as `_sampled`, decoded by torchcodec."""
    decoders, av = optional_import("torchcodec.decoders", extra="torchcodec"), optional_import("av", extra="video")
    if not Path(path).is_file():
        raise VideoError(f"{path}: no such file.")
    try:
        decoder = decoders.VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=n_threads)
        first, end = decoder.metadata.begin_stream_seconds, decoder.metadata.end_stream_seconds
        times = itertools.takewhile(lambda time: time < end - TOLERANCE_S, (first + count / fps for count in itertools.count()))
        while part := list(itertools.islice(times, FRAMES_PER_REQUEST)):
            for image in decoder.get_frames_played_at([min(time + TOLERANCE_S, end - TOLERANCE_S) for time in part]).data.numpy():
                yield _square(av.VideoFrame.from_ndarray(image, format="rgb24"), size)
    except (RuntimeError, ValueError, IndexError) as error:
        raise VideoError(f"{path}: damaged, or not a video that torchcodec reads ({error}).") from error


def _shown_for(frame: Any, stream: Any, step: float) -> float:
    """Seconds that the last frame stays on screen."""
    if frame.duration:
        return float(frame.duration * frame.time_base)
    return float(1 / stream.average_rate) if stream.average_rate else step


def _square(frame: Any, size: int) -> np.ndarray:
    """Scaled, cropped and upright RGB, (S, S, 3) uint8."""
    scale = size / min(frame.width, frame.height)
    width, height = max(size, round(frame.width * scale)), max(size, round(frame.height * scale))
    image = frame.reformat(width, height, format="rgb24").to_ndarray()
    top, left = (height - size) // 2, (width - size) // 2
    image = image[top : top + size, left : left + size]
    return _upright(image, frame)


def _upright(image: np.ndarray, frame: Any) -> np.ndarray:
    """Turned as the file says it was filmed."""
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))
