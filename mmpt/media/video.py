"""Decoding videos: frames chosen by time stamp, in bounded memory.

PyAV decodes; torchcodec does where asked to. Both show the same frames, as the times are chosen here; pixels
differ by rounding, because PyAV scales in YUV and torchcodec hands out RGB.

Letters: n seconds, FPS frames per second, S pixels of the cropped side.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.media.clock import Clock, timed
from mmpt.utils.optional import optional_import

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = {".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv", ".3gp"}
LISTS = set("concat hls applehttp dash webm_dash_manifest imf sdp rtp rtsp lavfi image2".split())
MAX_DAMAGE = 0.1  # share of a file that may be damaged
CUT_S = 1.0  # a file may end before what its head says by less
SEEK_BACK_S = 1.0
TOLERANCE_S = 1e-6  # a frame due at the asked time counts as shown
FRAMES_PER_REQUEST = 32  # of torchcodec, at full size
ONE_FRAME_PER_PACKET = {"h264", "hevc", "mpeg4", "mpeg2video"}  # others hide packets that show nothing
LOOK_AHEAD = 32  # packets; frames are stored at most 16 places away from where they are shown


class MediaError(ValueError):
    """A file of video or sound cannot be used; the message says which and why."""


class VideoError(MediaError):
    """A video file cannot be used; the message says which and why."""


@dataclass
class Damage:
    """What of a file is not as it was recorded.

    Attributes:
        concealed_s: seconds whose frames, or samples, could not be decoded; the last frame before stays on
            screen, sound is silent.
        missing_s: seconds that the head of the file promises behind its end.
    """

    concealed_s: float = 0.0
    missing_s: float = 0.0

    def __str__(self) -> str:
        return f"{self.concealed_s:.1f} s cannot be decoded, {self.missing_s:.1f} s are missing at the end"

    def __bool__(self) -> bool:
        return self.concealed_s > 0 or self.missing_s > 0

    def check(self, length_s: float, most: float, error: Callable[[str], ValueError], path: Any) -> None:
        """Raises `error` where more than the share `most` of a file is damaged."""
        lost = self.concealed_s + self.missing_s
        if lost > most * (length_s + self.missing_s):
            raise error(
                f"{path}: damaged: {self}, of {length_s + self.missing_s:.1f} s; {100 * most:g} % are "
                "accepted."
            )


@dataclass(frozen=True)
class VideoInfo:
    """What the head of a file says.

    Attributes:
        duration_s: seconds; counted from the packets where the file does not say.
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
    """Reads the head of a video file, and its packets where the head does not tell the length.

    Raises:
        VideoError: it cannot be opened, or holds no video.
    """
    with open_media(path, "video") as (container, stream):
        rate, audio = float(stream.average_rate or 0), bool(container.streams.audio)
        width, height = stream.width, stream.height
        told = (container.duration or 0) / 1e6
        if told and not Clock(container, stream).joined and stream.start_time is not None:
            return VideoInfo(told, rate, width, height, audio, _start(stream))
    start, end, _ = scan(path)
    return VideoInfo(end - start, rate, width, height, audio, start)


def scan(path: str | Path) -> tuple[float, float, bool]:
    """First and last second of the video of a file by its packets, and whether its clock had to be moved.

    Raises:
        VideoError: as `probe`.
    """
    about = Path(path).stat() if Path(path).is_file() else None
    return _scan(str(path), about and (about.st_size, about.st_mtime_ns))


@functools.lru_cache(maxsize=4096)
def _scan(path: str, version: tuple[int, int] | None) -> tuple[float, float, bool]:
    with open_media(path, "video") as (container, stream):
        clock, first, last, untimed = Clock(container, stream), math.inf, -math.inf, 0.0
        for packet in clock.packets():
            duration = (packet.duration or 0) * float(packet.time_base)
            if packet.pts is None:
                untimed += duration
            else:
                time = float(packet.pts * packet.time_base)
                first, last = min(first, time), max(last, time + duration)
        return (first, last, clock.moved) if first < last else (0.0, untimed, clock.moved)


def read_seconds(
    path: str | Path,
    fps: int = 30,
    size: int = 224,
    chunk_s: int = 4,
    decoder: str = "pyav",
    n_threads: int = 0,
    max_damage: float = MAX_DAMAGE,
    damage: Damage | None = None,
) -> Iterator[np.ndarray]:
    """A video second by second.

    Frame k of second s is the one on screen at s + k / fps, counted from the first frame, whatever the frame
    rate of the file and however it varies; `clock.py` says which time stamps are believed. The shorter side
    is scaled to `size`, the centre cropped, a stored rotation applied.

    Args:
        path: the file.
        fps: frames per second to take.
        size: pixels of the square.
        chunk_s: seconds per yielded array; the memory in use does not depend on the length of the video.
        decoder: "pyav", or "torchcodec" (extra `torchcodec`, and FFmpeg on the system).
        n_threads: that decode this one file; 0: as many as there are cores.
        max_damage: share of the file that may be damaged or cut off; where frames cannot be decoded, the last
            one before them stays on screen.
        damage: filled in while the video is read.

    Yields:
        (n <= chunk_s, FPS, S, S, 3) uint8 RGB; the last second is filled up with black frames, as in the
        released extraction, however little of it there is.

    Raises:
        VideoError: the file is missing, holds no frames, or is damaged beyond `max_damage`; the last is known
            at the end.
    """
    if decoder not in ("pyav", "torchcodec"):
        raise ValueError(f"decoder={decoder!r}: expected pyav or torchcodec.")
    way = _sampled if decoder == "pyav" else _sampled_by_torchcodec
    sampled = way(path, fps, size, n_threads, max_damage, Damage() if damage is None else damage)
    while frames := list(itertools.islice(sampled, chunk_s * fps)):
        frames += [np.zeros_like(frames[0])] * (-len(frames) % fps)
        yield np.stack(frames).reshape(-1, fps, size, size, 3)


def frame_at(path: str | Path, time_s: float, height: int = 120) -> np.ndarray:
    """The frame on screen at a time counted from the first frame, upright and whole: (height, width, 3) uint8
    RGB.

    Decodes from the key frame before, so that it is quick anywhere in a long file. A time past the end gives
    the last frame.

    Raises:
        VideoError: the file is missing, or holds no frames.
    """
    with failures_of(path):
        frame = next(_frames_at(path, time_s, itertools.repeat(0.0, 1)))
        lying = frame.rotation % 180 != 0  # then the stored width becomes the height
        scale = height / (frame.width if lying else frame.height)
        return _upright(_scaled(frame, _sizes(frame, scale)), frame)


def read_clip(
    path: str | Path, start_s: float, n_frames: int, fps: float, short_side: int = 256
) -> np.ndarray:
    """A piece of a video, upright and whole: (n_frames, H, W, 3) uint8 RGB, H and W at most so large that the
    shorter is `short_side`; where their size changes within the piece, that of its first frame.

    Frame k is the one on screen at start_s + k / fps, counted from the first frame. Decodes from the key
    frame before, so that it is quick anywhere in a long file; past the end the last frame is repeated.

    Raises:
        VideoError: the file is missing, or holds no frames there.
    """
    images: list[np.ndarray] = []
    sizes = None
    with failures_of(path):
        for frame in _frames_at(path, start_s, (k / fps for k in range(n_frames))):
            sizes = sizes or _sizes(frame, min(1.0, short_side / min(frame.width, frame.height)))
            images.append(_upright(_scaled(frame, sizes), frame))
        return np.stack(images)


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
    with open_media(path, "video") as (container, stream):
        clock = Clock(container, stream)
        packets = [
            (packet.dts if packet.pts is None else packet.pts, packet.is_keyframe)
            for packet in clock.packets()
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
        # of joined recordings no stamp is a place to seek
        keys = [] if clock.joined else sorted(time for time, is_key in packets if is_key and time is not None)
        chosen = [times[number] for number in choose(len(times))]
    images: list[np.ndarray] = []
    sizes = None
    with failures_of(path):
        for frame in _frames_by_time(path, chosen, keys):
            sizes = sizes or _sizes(frame, 1.0)
            images.append(_upright(_scaled(frame, sizes), frame))
        return np.stack(images)


def _frames_by_time(path: str | Path, times: Iterable[int], keys: Sequence[int]) -> Iterator[Any]:
    """The decoded frame on screen at each of some rising times, in ticks of the stream; `keys` are the times
    of key frames, from which decoding may begin, the first of them without a seek."""
    with open_media(path, "video") as (container, stream):
        decoded, shown = _decoded(Clock(container, stream), stream, Damage()), None
        following = next(decoded, None)
        for time in times:
            key = keys[max(0, bisect.bisect_right(keys, time) - 1)] if keys else 0
            seconds = float(time * stream.time_base) + TOLERANCE_S
            if keys and following is not None and following[0] < float(key * stream.time_base) - TOLERANCE_S:
                container.seek(key, stream=stream)
                decoded, shown = _decoded(Clock(container, stream), stream, Damage()), None
                following = next(decoded, None)
            while following is not None and (shown is None or following[0] <= seconds):
                shown, following = following, next(decoded, None)
            if shown is None:
                raise VideoError(f"{path}: damaged; a frame that the file lists cannot be decoded.")
            yield shown[1]


def _frames_at(path: str | Path, start_s: float, offsets: Iterable[float]) -> Iterator[Any]:
    """The decoded frame on screen at each start_s + offset, offsets rising."""
    with open_media(path, "video") as (container, stream):
        # the clock of a joined file may have been moved, which only its packets tell
        if Clock(container, stream).joined or stream.start_time is None:
            first, _, moved = scan(path)
        else:
            first, moved = _start(stream), False
    start, shown, following = first + start_s, None, None
    decoded = _from(path, first, first if moved else start)
    for offset in offsets:
        while shown is None or (following and following[0] <= start + offset + TOLERANCE_S):
            shown, following = following or next(decoded, None), next(decoded, None)
            if shown is None:
                raise VideoError(f"{path}: holds no frames at {start_s:g} s.")
        yield shown[1]


def _from(path: str | Path, first: float, start: float) -> Iterator[tuple[float, Any]]:
    """Decoded frames with their seconds, from the one on screen at `start` or some before.

    Where a seek lands is not believed: as long as the first frame is later, it goes back further, and in the
    end to the beginning of the file.
    """
    back = 0.0
    while start - back > first + SEEK_BACK_S:
        with open_media(path, "video") as (container, stream):
            container.seek(int((start - back) / stream.time_base), stream=stream)
            decoded = _decoded(Clock(container, stream), stream, Damage())
            head = next(decoded, None)
            if head is not None and head[0] <= start + TOLERANCE_S:
                yield head
                yield from decoded
                return
        back = 2 * back or SEEK_BACK_S
    with open_media(path, "video") as (container, stream):
        yield from _decoded(Clock(container, stream), stream, Damage())


def _start(stream: Any) -> float:
    """Seconds on the clock of the file at which the first frame is shown."""
    return float((stream.start_time or 0) * stream.time_base)


def _sizes(frame: Any, scale: float) -> tuple[int, int]:
    """Width and height of a scaled frame."""
    return max(1, round(frame.width * scale)), max(1, round(frame.height * scale))


def _scaled(frame: Any, sizes: tuple[int, int]) -> np.ndarray:
    return frame.reformat(*sizes, format="rgb24").to_ndarray()


@contextmanager
def failures_of(
    path: str | Path, error: type[MediaError] = VideoError, kind: str = "video"
) -> Iterator[None]:
    """Whatever is raised while a file is read, by a decoder, a scaler or numpy, becomes `error`, with its
    name."""
    try:
        yield
    except (MediaError, ImportError):  # a package that is missing is no fault of the file
        raise
    except Exception as found:
        av = optional_import("av", extra="video")
        if isinstance(found, av.error.FFmpegError):
            what = "damaged or not a video" if kind == "video" else "damaged audio"
            raise error(f"{path}: {what} ({found.strerror}).") from found
        raise error(f"{path}: cannot be read ({type(found).__name__}: {str(found)[:200]}).") from found


@functools.cache
def _only_this_file() -> dict[str, str]:
    """Options of FFmpeg with which a file shows what it holds, and never names other files or addresses to be
    opened: some of its formats are lists of these, whatever the file is called."""
    av = optional_import("av", extra="video")
    return {"format_whitelist": ",".join(sorted(av.formats_available - LISTS)), "protocol_whitelist": "file"}


@contextmanager
def open_media(
    path: str | Path, kind: str, n_threads: int = 0, error: type[MediaError] = VideoError
) -> Iterator[tuple[Any, Any]]:
    """Container and stream of a file; whatever is raised while it is read becomes `error`, with its name.

    Args:
        path: the file.
        kind: "video" or "audio".
        n_threads: that decode it; 0: as many as there are cores.
        error: class of the errors.
    """
    av = optional_import("av", extra="video")
    if not Path(path).is_file():
        raise error(f"{path}: {'a folder' if Path(path).is_dir() else 'no such file'}.")
    with (
        failures_of(path, error, kind),
        # titles are in any encoding
        av.open(str(path), options=_only_this_file(), metadata_errors="replace") as container,
    ):
        # of several, the one that players choose; never a cover picture
        stream = container.streams.best(kind)
        if stream is None:
            raise error(f"{path}: holds no {kind} {'track' if kind == 'audio' else 'stream'}.")
        if stream.codec_context is None:
            raise error(f"{path}: FFmpeg has no decoder for this kind of {kind}.")
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = n_threads
        yield container, stream


def _sampled(
    path: str | Path, fps: int, size: int, n_threads: int, max_damage: float, damage: Damage
) -> Iterator[np.ndarray]:
    """The frame on screen at 0, 1 / fps, 2 / fps, ..., (S, S, 3) each."""
    square = _square_cutter(size)
    with open_media(path, "video", n_threads) as (container, stream):
        step = 1 / fps
        clock = Clock(container, stream)
        # rows of sound count from there too; a first frame that is lost is shown by the one after it
        first = None if stream.start_time is None else _start(stream)
        shown = image = None
        time = 0.0
        count = 0
        for time, frame in _decoded(clock, stream, damage, step):
            first = time if first is None else first
            while shown is not None and count * step < time - first - TOLERANCE_S:
                image = square(shown) if image is None else image
                count += 1
                yield image
            shown, image = frame, None
        if shown is None or first is None:
            raise VideoError(f"{path}: holds no frames.")
        end = time - first + _shown_for(shown, stream, step)
        damage.missing_s = missing_at_end(container, stream, clock, first + end)
        damage.check(end, max_damage, VideoError, path)
        image = square(shown)
        while count * step < end - TOLERANCE_S:
            count += 1
            yield image


def missing_at_end(container: Any, stream: Any, clock: Clock, end_s: float) -> float:
    """Seconds of a stream that the head of the file promises behind where it ended, 0 where that may be as
    it was made."""
    if clock.joined or not container.duration or clock.moved:
        return 0.0
    if stream.duration:
        promised = float(((stream.start_time or 0) + stream.duration) * stream.time_base)
        missing = promised - end_s
    else:  # the length of the longest stream, which Matroska counts from 0 wherever the stream starts
        reached = max(clock.reached_s, end_s)
        ends = (container.duration / 1e6, ((container.start_time or 0) + container.duration) / 1e6)
        missing = min((end - reached for end in ends if end - reached > -CUT_S), default=0.0)
    return missing if missing > CUT_S else 0.0


def _decoded(
    clock: Clock, stream: Any, damage: Damage, step: float | None = None
) -> Iterator[tuple[float, Any]]:
    """Decoded frames with their seconds; what cannot be decoded is left out and counted."""
    end, holes = None, 0
    errors: list[Any] = []
    for time, frame in timed(_decode_needed(clock, stream, errors, step), stream):
        if len(errors) > holes:
            holes = len(errors)
            lost = float((errors[-1].duration or 0) * errors[-1].time_base)
            damage.concealed_s += max(lost, 0.0 if end is None else time - end)
        end = time + float((frame.duration or 0) * frame.time_base)
        yield time, frame
    for packet in errors[holes:]:
        damage.concealed_s += float((packet.duration or 0) * packet.time_base)


def _decode_needed(clock: Clock, stream: Any, errors: list[Any], step: float | None) -> Iterator[Any]:
    """Decoded frames, without those that are on screen at none of the times 0, step, 2 step, ... (None: at
    all times) and that no other frame is built from. Packets that cannot be decoded go to `errors`.

    Left out are only frames whose absence changes nothing: the decoder is told, packet by packet, whether it
    may drop such a frame. Which frame follows on screen is known from the time stamps of the packets around;
    where they do not tell, every frame is decoded.
    """
    av = optional_import("av", extra="video")
    tells = step is not None and stream.codec_context.name in ONE_FRAME_PER_PACKET
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
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            errors.append(packet)
            return
        for frame in frames:
            first = frame.pts if first is None else first
            yield frame

    for packet in clock.packets():
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


def _sampled_by_torchcodec(
    path: str | Path, fps: int, size: int, n_threads: int, max_damage: float, damage: Damage
) -> Iterator[np.ndarray]:
    """The same frames as `_sampled`, decoded by torchcodec, as far as it can.

    torchcodec believes the time stamps of a file; where one of them has to be mended, and where it stops at
    damage, PyAV decodes, and the log says so.
    """
    decoders = optional_import("torchcodec.decoders", extra="torchcodec")
    av = optional_import("av", extra="video")
    square = _square_cutter(size)
    count, reason = 0, "" if _has_true_stamps(path) else "its time stamps cannot be relied on"
    if not reason:
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
                    count += 1
            return
        except (RuntimeError, ValueError, IndexError) as error:
            reason = f"torchcodec stopped there ({str(error).splitlines()[0][:100]})"
    logger.warning("%s: PyAV decodes from %.1f s on: %s", path, count / fps, reason)
    yield from itertools.islice(_sampled(path, fps, size, n_threads, max_damage, damage), count, None)


def _has_true_stamps(path: str | Path) -> bool:
    """Whether the time stamps of all packets of a file can be believed as they are."""
    with open_media(path, "video") as (container, stream):
        clock = Clock(container, stream)
        if clock.joined:
            return False
        for _ in clock.packets():
            if clock.mended:
                return False
    return True


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
