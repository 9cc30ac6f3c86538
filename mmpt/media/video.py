"""Decoding videos: frames chosen by time stamp, in bounded memory.

PyAV decodes; torchcodec does where asked to. Both show the same frames, as the times are chosen here; pixels
differ by rounding, because PyAV scales in YUV and torchcodec hands out RGB.

Letters: n seconds, FPS frames per second, S pixels of the cropped side.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.utils.optional import optional_import

VIDEO_SUFFIXES = {".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv", ".3gp"}
TOLERANCE_S = 1e-6  # a frame due at the asked time counts as shown
FRAMES_PER_REQUEST = 32  # of torchcodec, at full size
ONE_FRAME_PER_PACKET = {"h264", "hevc", "mpeg4", "mpeg2video"}  # others hide packets that show nothing
LOOK_AHEAD = 32  # packets; frames are stored at most 16 places away from where they are shown


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
        start_s: time of the first frame on the clock that video and audio share.
    """

    duration_s: float
    fps: float
    width: int
    height: int
    has_audio: bool
    start_s: float = 0.0


def probe(path: str | Path) -> VideoInfo:
    """Reads the head of a video file.

    Raises:
        VideoError: it cannot be opened, or holds no video.
    """
    with open_video(path) as (container, stream):
        duration = container.duration or 0
        rate, start = float(stream.average_rate or 0), _start(stream)
        return VideoInfo(
            duration / 1e6, rate, stream.width, stream.height, bool(container.streams.audio), start
        )


def read_seconds(
    path: str | Path,
    fps: int = 30,
    size: int = 224,
    chunk_s: int = 4,
    decoder: str = "pyav",
    n_threads: int = 0,
) -> Iterator[np.ndarray]:
    """A video second by second.

    Frame k of second s is the one on screen at s + k / fps, counted from the first frame, whatever the frame
    rate of the file and however it varies. The shorter side is scaled to `size`, the centre cropped, a stored
    rotation applied.

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
    """The frame on screen at a time counted from the first frame, upright and whole: (height, width, 3) uint8
    RGB.

    Decodes from the key frame before, so that it is quick anywhere in a long file. A time past the end gives
    the last frame.

    Raises:
        VideoError: the file is missing, damaged, or holds no frames.
    """
    with open_video(path) as (container, stream):
        frame = next(_frames_at(path, container, stream, time_s, itertools.repeat(0.0, 1)))
        lying = frame.rotation % 180 != 0  # then the stored width becomes the height
        return _scaled(frame, height / (frame.width if lying else frame.height))


def read_clip(
    path: str | Path, start_s: float, n_frames: int, fps: float, short_side: int = 256
) -> np.ndarray:
    """A piece of a video, upright and whole: (n_frames, H, W, 3) uint8 RGB, H and W at most so large that the
    shorter is `short_side`.

    Frame k is the one on screen at start_s + k / fps, counted from the first frame. Decodes from the key
    frame before, so that it is quick anywhere in a long file; past the end the last frame is repeated.

    Raises:
        VideoError: the file is missing, damaged, or holds no frames there.
    """
    with open_video(path) as (container, stream):
        frames = _frames_at(path, container, stream, start_s, (k / fps for k in range(n_frames)))
        return np.stack(
            [_scaled(frame, min(1.0, short_side / min(frame.width, frame.height))) for frame in frames]
        )


def read_frames(
    path: str | Path, choose: Callable[[int], Sequence[int]], segment: tuple[float, float] | None = None
) -> np.ndarray:
    """Frames by their number, upright and whole: (F, H, W, 3) uint8 RGB.

    Frames are counted from the packets of the file, and only what leads to a chosen one is decoded.

    Args:
        path: the file.
        choose: number of frames -> which of them, rising; repetitions are allowed.
        segment: seconds from the first frame, [start, end), that alone is counted; None: the whole file.

    Raises:
        VideoError: the file is missing, damaged, or holds no frames there.
    """
    with open_video(path) as (container, stream):
        packets = [
            (packet.dts if packet.pts is None else packet.pts, packet.is_keyframe)
            for packet in container.demux(stream)
            if packet.size and not packet.is_discard
        ]
        times = sorted(time for time, _ in packets if time is not None)
        if segment is not None and times:
            start, end = (times[0] + seconds / float(stream.time_base) for seconds in segment)
            times = times[bisect.bisect_left(times, start) : bisect.bisect_left(times, end)]
        if not times:
            raise VideoError(
                f"{path}: holds no frames{'' if segment is None else ' at {}-{} s'.format(*segment)}."
            )
        keys = sorted(time for time, is_key in packets if is_key and time is not None)
        chosen = [times[number] for number in choose(len(times))]
        return np.stack(
            [_scaled(frame, 1.0) for frame in _frames_by_time(path, container, stream, chosen, keys)]
        )


def _frames_by_time(
    path: str | Path, container: Any, stream: Any, times: Iterable[int], keys: Sequence[int]
) -> Iterator[Any]:
    """The decoded frame on screen at each of some rising times, in ticks of the stream; `keys` are the times
    of key frames, from which decoding may begin."""
    decoded = shown = following = None
    for time in times:
        key = keys[max(0, bisect.bisect_right(keys, time) - 1)] if keys else 0
        if decoded is None or (following is not None and following.pts < key):
            container.seek(key, stream=stream)
            decoded, shown = container.decode(stream), None
            following = next(decoded, None)
        while following is not None and (shown is None or following.pts <= time):
            if following.pts is None:
                raise VideoError(f"{path}: frames carry no time stamps.")
            shown, following = following, next(decoded, None)
        if shown is None:
            raise VideoError(f"{path}: damaged; a frame that the file lists cannot be decoded.")
        yield shown


def _frames_at(
    path: str | Path, container: Any, stream: Any, start_s: float, offsets: Iterable[float]
) -> Iterator[Any]:
    """The decoded frame on screen at each start_s + offset, offsets rising."""
    start = _start(stream) + start_s
    container.seek(max(0, int(start / stream.time_base)), stream=stream)
    decoded, shown, following = container.decode(stream), None, None
    for offset in offsets:
        while shown is None or (following is not None and following.time <= start + offset + TOLERANCE_S):
            shown, following = following or next(decoded, None), next(decoded, None)
            if shown is None or shown.time is None:
                raise VideoError(f"{path}: holds no frames with time stamps at {start_s:g} s.")
        yield shown


def _start(stream: Any) -> float:
    """Seconds on the clock of the file at which the first frame is shown."""
    return float((stream.start_time or 0) * stream.time_base)


def _scaled(frame: Any, scale: float) -> np.ndarray:
    """The whole frame, upright RGB."""
    image = frame.reformat(
        max(1, round(frame.width * scale)), max(1, round(frame.height * scale)), format="rgb24"
    ).to_ndarray()
    return _upright(image, frame)


@contextmanager
def open_video(path: str | Path, n_threads: int = 0) -> Iterator[tuple[Any, Any]]:
    """Container and video stream of a file; decoding errors inside the block become `VideoError`."""
    av = optional_import("av", extra="video")
    if not Path(path).is_file():
        raise VideoError(f"{path}: {'a folder' if Path(path).is_dir() else 'no such file'}.")
    try:
        with av.open(str(path), metadata_errors="replace") as container:  # titles are in any encoding
            if not container.streams.video:
                raise VideoError(f"{path}: holds no video stream.")
            stream = container.streams.best(
                "video"
            )  # of several, the one that players choose; never a cover picture
            if stream.codec_context is None:
                raise VideoError(f"{path}: FFmpeg has no decoder for this kind of video.")
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = n_threads
            yield container, stream
    except av.error.FFmpegError as error:
        raise VideoError(f"{path}: damaged or not a video ({error.strerror}).") from error


def _sampled(path: str | Path, fps: int, size: int, n_threads: int) -> Iterator[np.ndarray]:
    """The frame on screen at 0, 1 / fps, 2 / fps, ..., (S, S, 3) each."""
    square = _square_cutter(size)
    with open_video(path, n_threads) as (container, stream):
        step = 1 / fps
        first = shown = image = None
        count = 0
        for frame in _decode_needed(container, stream, step):
            if frame.time is None:
                raise VideoError(f"{path}: frames carry no time stamps.")
            first = frame.time if first is None else first
            while shown is not None and count * step < frame.time - first - TOLERANCE_S:
                image = square(shown) if image is None else image
                count += 1
                yield image
            shown, image = frame, None
        if shown is None:
            raise VideoError(f"{path}: holds no frames.")
        end = shown.time - first + _shown_for(shown, stream, step)
        image = square(shown)
        while count * step < end - TOLERANCE_S:
            count += 1
            yield image


def _decode_needed(container: Any, stream: Any, step: float) -> Iterator[Any]:
    """Decoded frames, without those that are on screen at none of the times 0, step, 2 step, ... and that no
    other frame is built from.

    Left out are only frames whose absence changes nothing: the decoder is told, packet by packet, whether it
    may drop such a frame. Which frame follows on screen is known from the time stamps of the packets around;
    where they do not tell, every frame is decoded.
    """
    tells = stream.codec_context.name in ONE_FRAME_PER_PACKET
    waiting: deque[Any] = deque()
    times: list[int] = []  # of the packets waiting and of some before them, sorted
    first = None

    def decode() -> Iterator[Any]:
        nonlocal first
        packet = waiting.popleft()
        needed = (
            not tells
            or first is None
            or packet.pts is None
            or _is_on_screen(packet.pts, times, first, step / stream.time_base)
        )
        stream.codec_context.skip_frame = "DEFAULT" if needed else "NONREF"
        for frame in packet.decode():
            first = frame.pts if first is None else first
            yield frame

    for packet in container.demux(stream):
        waiting.append(packet)
        if packet.pts is not None:
            bisect.insort(times, packet.pts)
            del times[: -3 * LOOK_AHEAD]
        if len(waiting) > LOOK_AHEAD:
            yield from decode()
    while waiting:
        yield from decode()


def _is_on_screen(time: int, times: Sequence[int], first: int, step: float) -> bool:
    """Whether a frame is shown at any first + k step; all in ticks of the stream, a frame shown within a tick
    of such a time counts."""
    later = bisect.bisect_right(times, time)
    return later == len(times) or math.ceil((time - 1 - first) / step) * step <= times[later] + 1 - first


def _sampled_by_torchcodec(path: str | Path, fps: int, size: int, n_threads: int) -> Iterator[np.ndarray]:
    """The same times as `_sampled`, decoded by torchcodec."""
    decoders, av = (
        optional_import("torchcodec.decoders", extra="torchcodec"),
        optional_import("av", extra="video"),
    )
    square = _square_cutter(size)
    if not Path(path).is_file():
        raise VideoError(f"{path}: no such file.")
    try:
        decoder = decoders.VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=n_threads)
        first, end = decoder.metadata.begin_stream_seconds, decoder.metadata.end_stream_seconds
        times = itertools.takewhile(
            lambda time: time < end - TOLERANCE_S, (first + count / fps for count in itertools.count())
        )
        while part := list(itertools.islice(times, FRAMES_PER_REQUEST)):
            for image in decoder.get_frames_played_at(
                [min(time + TOLERANCE_S, end - TOLERANCE_S) for time in part]
            ).data.numpy():
                yield square(av.VideoFrame.from_ndarray(image, format="rgb24"))
    except (RuntimeError, ValueError, IndexError) as error:
        raise VideoError(f"{path}: damaged, or not a video that torchcodec reads ({error}).") from error


def _shown_for(frame: Any, stream: Any, step: float) -> float:
    """Seconds that the last frame stays on screen."""
    if frame.duration:
        return float(frame.duration * frame.time_base)
    return float(1 / stream.average_rate) if stream.average_rate else step


def _square_cutter(size: int) -> Callable[[Any], np.ndarray]:
    """A function: frame -> scaled, cropped and upright RGB, (S, S, 3) uint8. It serves the frames of one
    video."""
    scaler = optional_import(
        "av.video.reformatter", extra="video"
    ).VideoReformatter()  # setting it up costs more than a frame

    def square(frame: Any) -> np.ndarray:
        scale = size / min(frame.width, frame.height)
        width, height = max(size, round(frame.width * scale)), max(size, round(frame.height * scale))
        image = scaler.reformat(frame, width, height, format="rgb24").to_ndarray()
        top, left = (height - size) // 2, (width - size) // 2
        return _upright(image[top : top + size, left : left + size], frame)

    return square


def _upright(image: np.ndarray, frame: Any) -> np.ndarray:
    """Turned as the file says it was filmed."""
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))
