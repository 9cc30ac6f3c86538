"""Modalities read from files as an encoder takes them, instead of stored features.

    dataset:
      modalities:
        video: {path: data/videos, raw: frames, size: 224, transform: crop_flip, max_len: 8}   8 frames of
            <id>.mp4, ...
        audio: {path: data/sounds, raw: sound, max_len: 1}                                     1 slice of
            <id>.wav, ...
        depth: {path: data/depth, raw: frames, size: 224, max_len: 8}                          <id>_depth.npy,
            ...

Frames come from a video file, a folder of pictures in the order of their names, one picture, or an array
(time, height, width[, 3]) in an .npy file. Sound comes from an audio file or the audio track of a video.
Files are found by the id, with or without their suffix.

Letters: L = max_len positions, S pixels, T spectrogram frames of a slice, M mel filters.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmpt.media.audio import AudioError, read_audio
from mmpt.media.fbank import SAMPLE_RATE, fbank_slices, kaldi_fbank
from mmpt.media.frames import chunk_positions, model_pixels
from mmpt.media.video import VIDEO_SUFFIXES, MediaError, VideoError, failures_of, read_frames
from mmpt.processors.base import MissingData
from mmpt.utils.shardedtensor import open_npy

if TYPE_CHECKING:
    from mmpt.processors.modalities.modalities import Modality

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
SOUNDS = {".wav", ".mp3", ".flac", ".m4a", ".aac", ".ogg", ".opus"}
ARRAYS = {".npy"}

Reader = Callable[[int, np.random.Generator | None], np.ndarray]  # (L, draws in training) -> (L, ..)


class RawStream:
    """The files of one modality with `raw`.

    Args:
        modality: its entry. `rate` says how many pictures a second folders and arrays have, where an item
            is a segment of one; of the other keys see `mmpt.media.frames.model_pixels` and
            `mmpt.media.fbank.CONVENTIONS`.
    """

    def __init__(self, modality: Modality):
        assert modality.path is not None  # whoever reads files has named their folder
        self.modality, self.path = modality, modality.path

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one position: (3, S, S) or (T, M)."""
        entry = self.modality
        return (3, entry.size, entry.size) if entry.raw == "frames" else (entry.slice_frames, entry.filters)

    @functools.cached_property
    def _listings(self) -> dict[str, dict[str, Path]]:
        if not os.path.isdir(self.path):
            raise FileNotFoundError(
                f"dataset.modalities.{self.modality.name}.path={self.path}: no such folder."
            )
        return {}

    def find(self, source: str) -> Path | None:
        """The file or folder of an id, which may name sub-folders (train/v0); each is listed once."""
        folder, _, name = source.rpartition("/")
        if folder not in self._listings:
            self._listings[folder] = self._listing(Path(self.path, folder))
        return self._listings[folder].get(name)

    def _listing(self, folder: Path) -> dict[str, Path]:
        """Id -> file or folder; the first of several by name."""
        if not folder.is_dir():
            return {}
        known = VIDEO_SUFFIXES | (PICTURES | ARRAYS if self.modality.raw == "frames" else SOUNDS)
        found: dict[str, Path] = {}
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            path = Path(entry.path)
            if entry.is_dir() and self.modality.raw == "frames":
                found.setdefault(entry.name, path)
            elif path.suffix.lower() in known:
                found.setdefault(entry.name, path)
                found.setdefault(path.stem.removesuffix(f"_{self.modality.name}"), path)
        return found

    def __contains__(self, source: str) -> bool:
        return self.find(source) is not None

    def reader(self, source: str, segment: tuple[float, float] | None = None) -> Reader:
        """What reads an item when it is known how many positions are wanted, and by which draws."""
        return functools.partial(self.read, source, segment)

    def read(
        self, source: str, segment: tuple[float, float] | None, n: int, rng: np.random.Generator | None
    ) -> np.ndarray:
        """The item as its encoder takes it.

        Args:
            source: id of the file.
            segment: [start, end) in seconds; None: the whole file.
            n: positions: frames, or slices of sound.
            rng: draws which frames or slices, and where pictures are cut (training); None: middles.

        Returns:
            (n, 3, S, S) or (n, T, M) float32.

        Raises:
            MissingData: the file cannot be read; the message says why.
        """
        path = self.find(source)
        assert path is not None  # whoever asks has looked
        read = self._frames if self.modality.raw == "frames" else self._sound
        try:
            with failures_of(path):
                return read(path, segment, n, rng)
        except MediaError as error:
            raise MissingData(f"dataset.modalities.{self.modality.name}: {error}") from error

    def _frames(
        self, path: Path, segment: tuple[float, float] | None, n: int, rng: np.random.Generator | None
    ) -> np.ndarray:
        def choose(count: int) -> np.ndarray:
            return chunk_positions(count, n, rng)

        if path.suffix.lower() in VIDEO_SUFFIXES:
            frames = read_frames(path, choose, segment)
        elif path.suffix.lower() in ARRAYS:
            frames = _array(path)
            frames = frames[self._span(path, len(frames), segment)]
            frames = frames[choose(len(frames))]
        else:
            pictures = (
                [path]
                if path.is_file()
                else sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES)
            )
            pictures = pictures[self._span(path, len(pictures), segment)]
            frames = np.stack([read_frames(pictures[k], lambda count: [0])[0] for k in choose(len(pictures))])
        if frames.ndim == 3:
            frames = np.repeat(frames[..., None], 3, axis=3)
        return model_pixels(frames, self.modality.size, self.modality.transform, self.modality.pixels, rng)

    def _span(self, path: Path, n: int, segment: tuple[float, float] | None) -> slice:
        """The pictures of a segment."""
        start, end = (
            (0, n)
            if segment is None
            else (int(segment[0] * self.modality.rate), min(n, int(np.ceil(segment[1] * self.modality.rate))))
        )
        if start >= end:
            raise VideoError(
                f"{path}: holds no pictures{'' if segment is None else ' at {}-{} s'.format(*segment)}."
            )
        return slice(start, end)

    def _sound(
        self, path: Path, segment: tuple[float, float] | None, n: int, rng: np.random.Generator | None
    ) -> np.ndarray:
        wave = read_audio(path, SAMPLE_RATE)
        if segment is not None:
            wave = wave[int(segment[0] * SAMPLE_RATE) : int(np.ceil(segment[1] * SAMPLE_RATE))]
        fbank = kaldi_fbank(wave, self.modality.filters, self.modality.energies)
        if not len(fbank):
            raise AudioError(f"{path}: {len(wave)} samples at 16 kHz are too few for a spectrogram.")
        return fbank_slices(fbank, self.modality.slice_frames, n, rng, self.modality.energies)


def _array(path: Path) -> np.ndarray:
    """Pictures (time, height, width[, 3]) of values 0 to 255."""
    try:
        frames = open_npy(path, "r", any_order=True)
    except ValueError as error:
        raise VideoError(f"{path}: not a whole .npy file ({error}).") from error
    if frames.ndim not in (3, 4) or (frames.ndim == 4 and frames.shape[3] != 3) or frames.dtype != np.uint8:
        expected = "expected uint8 (time, height, width) or (time, height, width, 3)"
        raise VideoError(f"{path}: {expected}, got {frames.dtype} {frames.shape}.")
    return frames
