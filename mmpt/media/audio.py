"""Audio tracks, and log mel spectrograms with the conventions the published audio models were trained on.

Waveforms are mono, in the range of 16-bit integers (not divided by 32768).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.media.clock import Clock, timed
from mmpt.media.video import (
    MAX_DAMAGE,
    Damage,
    MediaError,
    VideoError,
    failures_of,
    missing_at_end,
    open_media,
    probe,
)
from mmpt.utils.optional import optional_import

FRAME_S, HOP_S = 0.02, 0.01
FFT_SIZE = 1024
PRE_EMPHASIS = 0.97
MEAN, STD = 1.93, 17.89  # of log energies over the training data of the published models
TAIL_S = 0.1  # sound that is shorter is padding of the encoder, no second of its own
BREAK_S = 0.05  # between time stamps and samples; less is rounding
LEAD_S = 1.0  # sought before a moment, so that the decoder has settled


class AudioError(MediaError):
    """An audio track cannot be used; the message says which and why."""


def log_mel(waveform: np.ndarray, sample_rate: int, n_filters: int) -> np.ndarray:
    """Log mel filterbank energies.

    Pre-emphasis, frames of 20 ms every 10 ms under a rectangular window (the last one zero-padded), power
    spectrum |FFT_1024|^2 / 1024, triangular filters between integer bins, natural logarithm; an empty filter
    gives log(eps).

    Args:
        waveform: (samples,) of any numeric type.
        sample_rate: samples per second.
        n_filters: mel filters over 0 .. sample_rate / 2.

    Returns:
        (n_filters, frames) float64, frames = 1 + ceil((samples - frame) / hop).
    """
    signal = np.asarray(waveform, dtype=np.float64)
    if signal.ndim != 1 or not len(signal):
        raise ValueError(f"log_mel reads a mono waveform (samples,), got shape {signal.shape}.")
    signal = np.append(signal[:1], signal[1:] - PRE_EMPHASIS * signal[:-1])
    frame, hop = round(FRAME_S * sample_rate), round(HOP_S * sample_rate)
    n_frames = 1 + max(0, -(-(len(signal) - frame) // hop))
    signal = np.pad(signal, (0, max(0, (n_frames - 1) * hop + frame - len(signal))))
    frames = np.lib.stride_tricks.sliding_window_view(signal, frame)[::hop][:n_frames]
    power = np.abs(np.fft.rfft(frames, FFT_SIZE)) ** 2 / FFT_SIZE  # (frames, 513)
    energies = power @ mel_filters(sample_rate, n_filters).T
    return np.log(np.where(energies == 0, np.finfo(np.float64).eps, energies)).T


@functools.lru_cache
def mel_filters(sample_rate: int, n_filters: int) -> np.ndarray:
    """Triangular filters on the FFT bins, (n_filters, 513); narrow low filters whose edges fall together are
    empty."""
    mels = np.linspace(0, 2595 * np.log10(1 + sample_rate / 2 / 700), n_filters + 2)
    edges = np.floor((FFT_SIZE + 1) * 700 * (10 ** (mels / 2595) - 1) / sample_rate).astype(int)
    bins = np.arange(FFT_SIZE // 2 + 1)
    filters = np.zeros((n_filters, len(bins)))
    for row, (low, middle, high) in zip(filters, zip(edges, edges[1:], edges[2:], strict=False), strict=True):
        rising, falling = (bins >= low) & (bins < middle), (bins >= middle) & (bins < high)
        row[rising] = (bins[rising] - low) / (middle - low)
        row[falling] = (high - bins[falling]) / (high - middle)
    return filters


def spectrogram(
    waveform: np.ndarray,
    sample_rate: int,
    start_s: float = 0.0,
    n_seconds: int = 1,
    n_filters: int = 40,
    normalise: bool = True,
) -> np.ndarray:
    """Log mel spectrogram of a window of a waveform.

    Args:
        waveform: (samples,) mono, 16-bit range.
        sample_rate: samples per second.
        start_s: where the window starts, seconds; a window past the end is moved back to end with the last
            sample.
        n_seconds: length of the window.
        n_filters: 40 or 257 in the published models.
        normalise: subtract the training mean, divide by the training deviation.

    Returns:
        (1, n_filters, 100 * n_seconds - 1) float32; frames that a short waveform lacks are 0.
    """
    length = sample_rate * n_seconds
    start = max(0, min(round(start_s * sample_rate), len(waveform) - length))
    found = log_mel(waveform[start : start + length], sample_rate, n_filters)
    if normalise:
        found = (found - MEAN) / STD
    result = np.zeros((1, n_filters, 100 * n_seconds - 1), dtype=np.float32)
    width = min(found.shape[1], result.shape[2])
    result[0, :, :width] = found[:, :width]
    return result


def read_audio(path: str | Path, sample_rate: int = 24000) -> np.ndarray:
    """The audio track of a file (of several, the one that players choose), mixed to mono, holes silent:
    (samples,) int16.

    Raises:
        AudioError: no such file, no audio track, or a damaged one.
    """
    with failures_of(path, AudioError, "audio"):
        return np.concatenate([part for _, part in _placed(path, sample_rate)])


def read_audio_around(
    path: str | Path, start_s: float, length_s: float, sample_rate: int = 24000
) -> tuple[np.ndarray, float]:
    """The sound from about a second before a moment to at least its end, without decoding what lies before.

    Args:
        path: the file.
        start_s: on the clock of the file.
        length_s: seconds asked for.
        sample_rate: samples per second.

    Returns:
        (samples,) int16 mono, and where in it start_s lies, in seconds. Near the end of the track it is
        shorter.

    Raises:
        AudioError: as `read_audio`, or there is no sound there.
    """
    first, parts = None, []
    with failures_of(path, AudioError, "audio"):
        for time_s, part in _placed(path, sample_rate, seek_s=start_s - LEAD_S):
            if first is not None and time_s > start_s + length_s:
                break
            first = time_s if first is None else first
            parts.append(part)
        sound = np.concatenate(parts)
        assert first is not None  # there were parts
        return sound, start_s - first


def read_audio_windows(
    path: str | Path,
    sample_rate: int = 24000,
    window_s: int = 1,
    chunk_s: int = 16,
    max_damage: float = MAX_DAMAGE,
    damage: Damage | None = None,
) -> Iterator[np.ndarray]:
    """The sound around every second of a file, in bounded memory.

    Seconds count from the first frame of video, as `read_seconds` counts them: sound that starts later is
    preceded by silence, sound that starts earlier loses its beginning, holes are silent. Without video they
    count from the first sample. An end of less than a tenth of a second makes no second of its own.

    Args:
        path: the file.
        sample_rate: samples per second.
        window_s: seconds per window, one window per second of sound; a longer one has the second in its
            middle (an even one half a second later) and silence beyond the ends of the track.
        chunk_s: windows per yielded array.
        max_damage, damage: as in `read_seconds`.

    Yields:
        (n <= chunk_s, window_s * sample_rate) int16; the last second is filled up with silence.

    Raises:
        AudioError: as `read_audio`.
    """
    before = (window_s - 1) // 2
    # starts `before` seconds before the next second to yield
    pieces = [np.zeros(before * sample_rate, dtype=np.int16)]
    damage = Damage() if damage is None else damage
    total, waiting = 0, len(pieces[0])
    for piece in _from_first_frame(path, sample_rate, damage):
        pieces.append(piece)
        total, waiting = total + len(piece), waiting + len(piece)
        # a second is one once a tenth of it has sounded
        if waiting >= (window_s + chunk_s - 1 + TAIL_S) * sample_rate:
            buffer = np.concatenate(pieces)
            windows = _windows(buffer, sample_rate, window_s)[:chunk_s]
            yield windows
            pieces = [buffer[len(windows) * sample_rate :]]
            waiting = len(pieces[0])
    buffer = np.concatenate(pieces)
    damage.check(total / sample_rate, max_damage, AudioError, path)
    tail = total % sample_rate
    if total > sample_rate and tail < TAIL_S * sample_rate:  # padding of the encoder
        buffer = buffer[: len(buffer) - tail]
    silence = -len(buffer) % sample_rate + (window_s - 1 - before) * sample_rate
    windows = _windows(np.pad(buffer, (0, silence)), sample_rate, window_s)
    yield from (windows[first : first + chunk_s] for first in range(0, len(windows), chunk_s))


def _from_first_frame(path: str | Path, sample_rate: int, damage: Damage) -> Iterator[np.ndarray]:
    """Pieces of the audio track, as they are decoded; see `read_audio_windows`."""
    try:
        start_s = probe(path).start_s
    except VideoError:
        start_s = None
    early = None  # samples before the first frame
    for time_s, piece in _placed(path, sample_rate, damage=damage):
        if early is None:
            early = 0 if start_s is None else round((start_s - time_s) * sample_rate)
            yield from (np.zeros(min(sample_rate, late), np.int16) for late in range(-early, 0, -sample_rate))
        yield piece[max(0, early) :]
        early -= len(piece)
    if early is not None and early > 0:
        raise AudioError(f"{path}: the sound ends before the first frame.")


def _placed(
    path: str | Path, sample_rate: int, seek_s: float | None = None, damage: Damage | None = None
) -> Iterator[tuple[float, np.ndarray]]:
    """Pieces of the audio track with their time on the clock of the file, each where the one before ended.

    Time stamps say where sound belongs: a hole between them is silent, what overlaps is cut, and a sample
    clock that drifts is set right whenever it is off by more than some hundredths of a second.
    """
    origin, written = None, 0  # seconds of the first sample; samples so far
    for time_s, pieces in _decode(path, sample_rate, seek_s, damage):
        origin = time_s if origin is None else origin
        place = round((time_s - origin) * sample_rate)
        while place - written > 0:
            silence = np.zeros(min(sample_rate, place - written), np.int16)
            yield origin + written / sample_rate, silence
            written += len(silence)
        overlap = written - place
        for piece in pieces:
            kept = piece[max(0, overlap) :]
            overlap -= len(piece)
            if len(kept):
                yield origin + written / sample_rate, kept
                written += len(kept)


def _decode(
    path: str | Path, sample_rate: int, seek_s: float | None = None, damage: Damage | None = None
) -> Iterator[tuple[float, Iterator[np.ndarray]]]:
    """Stretches of sound without a break in their time stamps: the seconds of the first sample, and pieces of
    (samples,) int16 mono; at least one. A stretch is to be used up before the next."""
    damage = Damage() if damage is None else damage
    with open_media(path, "audio", error=AudioError) as (container, stream):
        clock = Clock(container, stream)
        if seek_s is not None:
            container.seek(max(0, int(seek_s / stream.time_base)), stream=stream)
        frames = _Frames(clock, stream, damage)
        while frames.following is not None:
            yield frames.following[0], frames.stretch(frames.following, sample_rate)
        if not frames.any:
            behind = "" if seek_s is None else f" behind {seek_s:.1f} s"
            raise AudioError(f"{path}: the audio track is empty{behind}.")
        damage.missing_s = missing_at_end(container, stream, clock, frames.end_s)


class _Frames:
    """Decoded frames of sound, cut into stretches that one resampler can read."""

    def __init__(self, clock: Clock, stream: Any, damage: Damage):
        self.damage, self.any, self.end_s = damage, False, 0.0
        self.errors: list[Any] = []
        self._frames = timed(self._decoded(clock), stream)
        self.following = next(self._frames, None)

    def stretch(self, first: tuple[float, Any], sample_rate: int) -> Iterator[np.ndarray]:
        """Pieces from the first frame, which is `following`, to the next break: of time, layout or rate."""
        av = optional_import("av", extra="video")
        resampler = av.AudioResampler(format="s16", layout="mono", rate=sample_rate)
        self.end_s, head = first
        kind = (head.format.name, head.layout.name, head.sample_rate)
        while self.following is not None:
            time, frame = self.following
            other = (frame.format.name, frame.layout.name, frame.sample_rate) != kind
            if other or abs(time - self.end_s) > BREAK_S:
                break
            self.any = True
            self.end_s += frame.samples / frame.sample_rate
            yield from (part.to_ndarray()[0] for part in resampler.resample(frame))
            self.following = next(self._frames, None)
        yield from (part.to_ndarray()[0] for part in resampler.resample(None))  # what it still holds

    def _decoded(self, clock: Clock) -> Iterator[Any]:
        av = optional_import("av", extra="video")
        for packet in clock.packets():
            try:
                yield from packet.decode()
            except av.error.InvalidDataError:
                self.damage.concealed_s += float((packet.duration or 0) * packet.time_base)


def _windows(wave: np.ndarray, sample_rate: int, window_s: int) -> np.ndarray:
    """All whole windows, one per second: (n, window_s * sample_rate)."""
    length = window_s * sample_rate
    if len(wave) < length:
        return np.empty((0, length), wave.dtype)
    return np.lib.stride_tricks.sliding_window_view(wave, length)[::sample_rate]
