"""Log mel energies by the conventions of Kaldi, which BEATs and AST were trained on, and their cut into
slices of one length.

Shape letters: S samples, T frames, M mel filters, A slices.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

from mmpt.media.frames import chunk_positions

SAMPLE_RATE = 16000
FRAME, HOP, FFT_SIZE = 400, 160, 512  # samples: 25 ms every 10 ms
PRE_EMPHASIS = 0.97
LOWEST_HZ = 20.0
FLOOR = 1.1920928955078125e-07  # epsilon of float32: the least energy


class Convention(NamedTuple):
    """How the log energies of a network's training were made, and their mean and twice their deviation."""

    window_power: float  # of the symmetric Hann window; 0.85 is Povey's
    scale: float  # of a waveform of 16-bit integers
    mean: float
    double_std: float


CONVENTIONS = {
    "beats": Convention(0.85, 1.0, 15.41663, 2 * 6.55582),
    "ast": Convention(1.0, 2.0**-15, -4.2677393, 2 * 4.5689974),
}


def kaldi_fbank(waveform: np.ndarray, n_filters: int = 64, convention: str = "beats") -> np.ndarray:
    """Log energies of triangular mel filters.

    Whole frames of 25 ms every 10 ms, each without its mean; pre-emphasis inside the frame, whose first
    sample precedes itself; a window; power spectrum of 512 points; filters with slopes that are straight in
    mel. No dither.

    Args:
        waveform: (S,) mono at 16 kHz, in the range of 16-bit integers.
        n_filters: M.
        convention: what made the energies of the network's training, see `CONVENTIONS`.

    Returns:
        (T, M) float32, T = 1 + (S - 400) // 160; no frame where S < 400.
    """
    signal = np.asarray(waveform, dtype=np.float64) * CONVENTIONS[convention].scale
    if signal.ndim != 1:
        raise ValueError(f"kaldi_fbank reads a mono waveform (samples,), got shape {signal.shape}.")
    if len(signal) < FRAME:
        return np.zeros((0, n_filters), dtype=np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(signal, FRAME)[::HOP]
    frames = frames - frames.mean(axis=1, keepdims=True)
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    windowed = (frames - PRE_EMPHASIS * before) * window(CONVENTIONS[convention].window_power)
    power = np.abs(np.fft.rfft(windowed, FFT_SIZE)) ** 2  # (T, 257)
    energies = power[:, :-1] @ mel_triangles(n_filters).T  # the bin at half the sample rate has no weight
    return np.log(np.maximum(energies, FLOOR)).astype(np.float32)


@functools.lru_cache
def window(power: float) -> np.ndarray:
    """(400,): a symmetric Hann window to a power."""
    return np.hanning(FRAME) ** power


@functools.lru_cache
def mel_triangles(n_filters: int) -> np.ndarray:
    """(M, 256): weights of the FFT bins, whose edges are equally spaced in mel between 20 Hz and half the
    sample rate.

    In float32 steps as released: near the tip of a triangle they move a weight by 1e-5, which shows in the
    log energy of a pure tone.
    """
    low, high = (1127.0 * math.log(1.0 + hertz / 700.0) for hertz in (LOWEST_HZ, SAMPLE_RATE / 2))
    step, number = np.float32((high - low) / (n_filters + 1)), np.arange(n_filters, dtype=np.float32)[:, None]
    left, centre, right = (np.float32(low) + (number + np.float32(k)) * step for k in range(3))
    ratios = 1 + np.arange(FFT_SIZE // 2, dtype=np.float32) * np.float32(SAMPLE_RATE / FFT_SIZE) / np.float32(
        700
    )
    bins = np.float32(1127) * np.log(ratios.astype(np.float64)).astype(np.float32)
    return np.maximum(0, np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)))


def normalized(fbank: np.ndarray, convention: str = "beats") -> np.ndarray:
    """Log energies less their mean, over twice their deviation."""
    return (fbank - CONVENTIONS[convention].mean) / CONVENTIONS[convention].double_std


def fbank_slices(
    fbank: np.ndarray,
    length: int = 1024,
    n_slices: int = 1,
    rng: np.random.Generator | None = None,
    convention: str = "beats",
) -> np.ndarray:
    """Slices of a spectrogram, normalised.

    The end is padded with zeros to whole slices, at least `n_slices` of them (a spectrogram that fills its
    slices gets one more, as released); then one slice of each of `n_slices` nearly equal chunks is taken.

    Args:
        fbank: (T, M), see `kaldi_fbank`.
        length: frames of a slice.
        n_slices: A.
        rng: draws the slice of each chunk (training); None: the middle one.
        convention: see `CONVENTIONS`.

    Returns:
        (A, length, M) float32. Without a frame, zeros.
    """
    normalised = normalized(fbank, convention)
    n_frames = len(normalised)
    padding = max(length * n_slices - n_frames, length - n_frames % length)
    padded = np.pad(normalised, ((0, padding), (0, 0)))
    slices = padded[: len(padded) // length * length].reshape(-1, length, fbank.shape[1])
    return slices[chunk_positions(len(slices), n_slices, rng)].astype(np.float32)
