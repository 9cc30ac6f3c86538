"""Clips of video and sound straight from files, for GDT without stored features.

    dataset:
      meta_processor: RawClipMetaProcessor  # train_path: a folder of videos, or a text file with one path a
          line
      video_processor: RawAVProcessor
      text_processor: NoTextProcessor
      aligner: RawAVAligner
      views: [orig]
      raw: {frames: 30, fps: 30, size: 112}

Source: GDT (Patrick et al. 2020), section "data". Where the released code counts frames, these go by time
    stamps, so that sound and
frames belong together whatever the rate of the file.

Letters: S views of an item, T frames of S x S pixels, M mel filters, A spectrogram frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmpt.config.fields import Section, option
from mmpt.config.schema import DatasetConfig
from mmpt.media.audio import AudioError, read_audio_around, spectrogram
from mmpt.media.video import VIDEO_SUFFIXES, VideoError, VideoInfo, probe, read_clip
from mmpt.processors.base import MetaProcessor, MissingData
from mmpt.processors.gdt import VIEWS, Views
from mmpt.processors.modalities.clips import ClipAugment, spec_augment
from mmpt.registry import ALIGNERS, META_PROCESSORS, TEXT_PROCESSORS, VIDEO_PROCESSORS
from mmpt.utils.seed import ItemRandom
from mmpt.utils.text import read_lines

CANDIDATES = 16  # places among which the shifted clip is looked for
READ_SCALE = 2  # frames are read at most so many times the size of the crop, which augmentation then scales


@dataclass(frozen=True, kw_only=True)
class RawClips(Section):
    """The `dataset.raw` section."""

    frames: int = option(30, "T", least=1)
    fps: float = option(30.0, "frames per second of a clip, whatever the file's own rate", above=0)
    size: int = option(112, "S, pixels", least=1)
    sound_s: int = option(1, "whole seconds of sound, from the clip's first frame on", least=1)
    sample_rate: int = option(24000, "of the sound, per second", least=1)
    filters: int = option(40, "M; published models have 40 or 257", least=1)
    spec_augment: str | None = option(
        "medium", "bands hidden in training, or null", one_of=("mild", "medium", "heavy")
    )
    volume: float = option(0.1, "the sound is made up to this share louder or softer in training", least=0)

    @classmethod
    def of(cls, config: DatasetConfig) -> RawClips:
        """Reads the section.

        Raises:
            ValueError: an unknown key, or a value out of range.
        """
        return cls.from_yaml(config.raw or {}, "dataset.raw")

    @property
    def length_s(self) -> float:
        """Seconds that a clip needs."""
        return max(self.frames / self.fps, float(self.sound_s))


@dataclass(frozen=True, kw_only=True)
class RawKeys(Section):
    """Clips from video files."""

    raw: Mapping[str, Any] | None = option(
        None,
        "clips straight from video files: {frames, fps, size, sound_s, sample_rate, filters, "
        "spec_augment, volume}",
        holds=RawClips,
    )


class RawFile(NamedTuple):
    """A video file that can be used, and what its head says."""

    path: Path
    info: VideoInfo


@META_PROCESSORS.register()
class RawClipMetaProcessor(MetaProcessor):
    """Video files of a folder (and all folders in it), or of a text file with one path a line, relative to
    it; sorted."""

    def __init__(self, config: DatasetConfig):
        super().__init__(config)
        source = Path(self.split_path())
        if source.is_dir():
            files = [path for path in source.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES]
        elif source.is_file():
            files = [source.parent / line for line in read_lines(source)]
        else:
            raise FileNotFoundError(
                f"dataset.{self.SPLIT_KEYS[self.split]}={source}: neither a folder of videos nor a list "
                "of paths."
            )
        if not files:
            raise ValueError(f"{source}: no video files; known are {', '.join(sorted(VIDEO_SUFFIXES))}.")
        self.data = [(path, None) for path in sorted(files)]


@VIDEO_PROCESSORS.register()
class RawAVProcessor:
    """Path -> a file with video and sound, long enough for a clip; any other is missing data, which training
    skips and counts."""

    Config = RawKeys

    def __init__(self, config: DatasetConfig):
        self.clips = RawClips.of(config)

    def __call__(self, video_id: Path) -> RawFile:
        try:
            info = probe(video_id)
        except VideoError as error:
            raise MissingData(str(error)) from error
        if not info.has_audio:
            raise MissingData(f"{video_id}: holds no audio track.")
        if info.duration_s < self.clips.length_s:
            raise MissingData(
                f"{video_id}: has {info.duration_s:.2f} s, a clip needs {self.clips.length_s:g}."
            )
        return RawFile(video_id, info)


@TEXT_PROCESSORS.register()
class NoTextProcessor:
    """There is no text."""

    def __init__(self, config: DatasetConfig):
        pass

    def __call__(self, text_id: None, rng: ItemRandom | None = None) -> None:
        return None


@ALIGNERS.register()
class RawAVAligner:
    """A clip at a random place, frames and sound of the same moment, in the views that `dataset.views` lists.

    The shifted clip starts at an independent random place, as published, or with `dataset.min_shift` at least
    so many seconds away (as far as the drawn places allow); where the file is no longer than a clip,
    `view_valid` is false. Reversal plays frames and sound backwards. Every view is augmented by draws of its
    own in training, and cut from the middle elsewhere.

    Returns `video` (S, 3, T, S, S), `audio` (S, 1, M, A), `view_valid` (S), without the first axis if there
    is one view, and `video_id`; `cmasks` of no words.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(RawKeys, Views):
        """Clips from video files and their views."""

    def __init__(self, config: DatasetConfig):
        self.views = list(config.views or VIEWS[:1])
        if self.views != [view for view in VIEWS if view in self.views] or self.views[:1] != ["orig"]:
            raise ValueError(
                f"dataset.views={self.views}: expected some of {', '.join(VIEWS)}, in this order, orig first."
            )
        if (config.subsampling or 1) != len(self.views):
            raise ValueError(
                f"dataset.subsampling={config.subsampling}, but dataset.views lists {len(self.views)}: "
                "use that number."
            )
        self.clips, self.min_shift, self.training = (
            RawClips.of(config),
            config.min_shift or 0,
            config.split in (None, "train"),
        )
        scale = (
            round(self.clips.size * 8 / 7),
            round(self.clips.size * 10 / 7),
        )  # 128 to 160 pixels for crops of 112
        self.augment = ClipAugment(size=self.clips.size, scale=scale)

    def __call__(
        self, video_id: Path, video_feature: RawFile, text_feature: None, rng: ItemRandom
    ) -> dict[str, Any]:
        places = self.places(video_feature.info.duration_s, rng.numpy)
        shifted = [int(view.startswith("shift")) for view in self.views]
        read = {number: self.read(video_feature, places[number]) for number in sorted(set(shifted))}
        made = [
            self.view(*read[number], view.endswith("rev"), rng)
            for view, number in zip(self.views, shifted, strict=True)
        ]
        item = {
            "video": torch.stack([video for video, _ in made]),
            "audio": torch.stack([audio for _, audio in made]),
            "view_valid": torch.tensor([not number or places[0] != places[1] for number in shifted]),
            "cmasks": torch.zeros(len(made), 1, dtype=torch.bool),
        }
        if len(made) == 1:
            item = {key: value[0] for key, value in item.items()}
        return {**item, "video_id": video_id.stem}

    def places(self, length_s: float, rng: np.random.Generator) -> tuple[float, float]:
        """Where the clip and the shifted clip start, in seconds; equal where there is no room to shift."""
        places = rng.uniform(0, length_s - self.clips.length_s, CANDIDATES)
        distance = np.abs(places[1:] - places[0])
        far = np.flatnonzero(distance >= self.min_shift)
        return float(places[0]), float(places[1 + (far[0] if len(far) else distance.argmax())])

    def read(self, file: RawFile, start_s: float) -> tuple[Tensor, np.ndarray, float]:
        """Frames (T, H, W, 3) uint8, a waveform around them, and where in it the clip starts, in seconds."""
        clips = self.clips
        try:
            frames = read_clip(file.path, start_s, clips.frames, clips.fps, READ_SCALE * clips.size)
            wave, offset_s = read_audio_around(
                file.path, file.info.start_s + start_s, clips.sound_s, clips.sample_rate
            )
        except (VideoError, AudioError) as error:
            raise MissingData(str(error)) from error
        return torch.from_numpy(frames), wave, offset_s

    def view(
        self, frames: Tensor, wave: np.ndarray, offset_s: float, backwards: bool, rng: ItemRandom
    ) -> tuple[Tensor, Tensor]:
        """(3, T, S, S) and (1, M, A)."""
        clips = self.clips
        louder = 1 + clips.volume * rng.numpy.uniform(-1, 1) if self.training else 1.0
        sound = torch.from_numpy(
            spectrogram(louder * wave, clips.sample_rate, offset_s, clips.sound_s, clips.filters)
        )
        frames, sound = (frames.flip(0), sound.flip(-1)) if backwards else (frames, sound)
        if not self.training:
            return self.augment.views(frames)[1], sound
        sound = sound if clips.spec_augment is None else spec_augment(sound, clips.spec_augment, rng.torch)
        return self.augment(frames, rng.torch), sound
