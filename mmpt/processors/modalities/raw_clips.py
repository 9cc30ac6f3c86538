"""Clips of video and sound straight from files, for GDT and STiCA without stored features.

    dataset:
      meta_processor: RawClipMetaProcessor  # train_path: ROOT/SPLIT with a folder per class, or a list of
      paths video_processor: RawAVProcessor
      text_processor: NoTextProcessor
      aligner: RawAVAligner                 # GDT; RawVersionAligner for STiCA
      num_video_per_batch: 8
      raw: {frames: 30, fps: 30, size: 112}

The views of GDT, how many samples they make of a video, and how a batch is laid out follow from
`loss.hypothesis`. Source: GDT (Patrick et al. 2020), STiCA (2021), sections "data". Where the released code
counts frames, these go by time stamps, so that sound and frames belong together whatever the rate of the
file.

Letters: V views of an item, T frames of S x S pixels, M mel filters, A spectrogram frames.
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
from mmpt.media.audio import read_audio_around, spectrogram
from mmpt.media.video import VIDEO_SUFFIXES, MediaError, VideoInfo, probe, read_clip
from mmpt.processors.base import MetaProcessor, MissingData
from mmpt.processors.gdt import Views, alone, checked_views
from mmpt.processors.modalities.clips import ClipAugment, spec_augment
from mmpt.registry import ALIGNERS, META_PROCESSORS, VIDEO_PROCESSORS
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
    normalise_sound: bool = option(True, "bring log energies to mean 0, deviation 1 of the published data")
    sound_shift_s: float = option(
        0.0, "the sound starts up to so many seconds before or after the frames in training", least=0
    )
    jitter: float | None = option(
        None,
        "probability of other colours in training; null: 1 (GDT) or 0.8 (STiCA, recognition)",
        least=0,
        most=1,
    )
    gray: float | None = option(
        None, "probability of a gray clip in training; null: 0.2 (STiCA) or 0", least=0, most=1
    )
    blur: float | None = option(
        None, "probability of a blurred clip in training; null: 0.5 (STiCA) or 0", least=0, most=1
    )
    random_box: bool | None = option(
        None,
        "cut a box of random area and aspect in training, else a square of a randomly scaled picture; "
        "null: as published (STiCA, recognition: true; GDT: false)",
    )

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

    def augment(self, box: bool, jitter: float, gray: float, blur: float) -> ClipAugment:
        """The augmentation of a paper, whose settings are given, with the changes of this section."""
        chosen: dict[str, Any] = {
            name: usual if (own := getattr(self, name)) is None else own
            for name, usual in {"jitter": jitter, "gray": gray, "blur": blur}.items()
        }
        # 128 to 160 pixels for crops of 112
        scale = (round(self.size * 8 / 7), round(self.size * 10 / 7))
        has_box = box if self.random_box is None else self.random_box
        return ClipAugment(size=self.size, scale=None if has_box else scale, normalise_first=box, **chosen)


@dataclass(frozen=True, kw_only=True)
class RawKeys(Section):
    """Clips from video files."""

    raw: Mapping[str, Any] | None = option(
        None,
        "clips straight from video files: frames, fps, size, sound_s, sample_rate, filters, spec_augment, "
        "...; `mmpt list keys` shows all",
        holds=RawClips,
    )


class RawFile(NamedTuple):
    """A video file that can be used, and what its head says."""

    path: Path
    info: VideoInfo


class ShuffledMetaProcessor(MetaProcessor):
    """In training its items, which sub-classes put into `data` and `in_order`, come in another order every
    epoch: clips of a video, or videos of a class, lie side by side and would be a batch."""

    in_order: list[Any]

    def begin_epoch(self, rng: np.random.Generator) -> None:
        self.data = [self.in_order[k] for k in rng.permutation(len(self.in_order))]


@META_PROCESSORS.register()
class RawClipMetaProcessor(ShuffledMetaProcessor):
    """Video files of a folder (and all folders in it), or of a text file with one path a line, relative to
    it; in training in another order every epoch."""

    def __init__(self, config: DatasetConfig):
        super().__init__(config)
        source = Path(self.split_path())
        if source.is_dir():
            files = list_videos(source)
        elif source.is_file():
            files = [source.parent / line for line in read_lines(source)]
        else:
            raise FileNotFoundError(
                f"dataset.{self.SPLIT_KEYS[self.split]}={source}: neither a folder of videos nor a list "
                "of paths."
            )
        if not files:
            raise ValueError(f"{source}: no video files; known are {', '.join(sorted(VIDEO_SUFFIXES))}.")
        self.data = self.in_order = [(path, None) for path in sorted(files)]


def list_videos(folder: Path) -> list[Path]:
    """All video files of a folder and the folders in it."""
    return [path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES]


@VIDEO_PROCESSORS.register()
class RawVideoProcessor:
    """Path, alone or first of an id, -> a file with video; any other is missing data, which training skips
    and counts."""

    Config = RawKeys

    def __init__(self, config: DatasetConfig):
        self.clips = RawClips.of(config)

    def __call__(self, video_id: Path | tuple[Path, Any]) -> RawFile:
        path = video_id[0] if isinstance(video_id, tuple) else video_id
        try:
            return RawFile(path, probe(path))
        except MediaError as error:
            raise MissingData(str(error)) from error


@VIDEO_PROCESSORS.register()
class RawAVProcessor(RawVideoProcessor):
    """Path -> a file with video and sound, long enough for a clip; any other is missing data, which training
    skips and counts."""

    def __call__(self, video_id: Path | tuple[Path, Any]) -> RawFile:
        file = super().__call__(video_id)
        if not file.info.has_audio:
            raise MissingData(f"{file.path}: holds no audio track.")
        if file.info.duration_s < self.clips.length_s:
            raise MissingData(
                f"{file.path}: has {file.info.duration_s:.2f} s, a clip needs {self.clips.length_s:g}."
            )
        return file


class RawAligner:
    """Reads clips of files, and augments them in training."""

    Config = RawKeys

    def __init__(self, config: DatasetConfig):
        self.config, self.clips = config, RawClips.of(config)
        self.training = config.split in (None, "train")
        self.augment = self.augmentation()

    def augmentation(self) -> ClipAugment:
        """That of the paper."""
        return self.clips.augment(box=False, jitter=1.0, gray=0.0, blur=0.0)

    def frames(self, path: Path, start_s: float) -> Tensor:
        """(T, H, W, 3) uint8, read at most twice as large as the crop, which augmentation then scales.

        Raises:
            MissingData: the file cannot be read there.
        """
        clips = self.clips
        try:
            frames = read_clip(path, start_s, clips.frames, clips.fps, READ_SCALE * clips.size)
        except MediaError as error:
            raise MissingData(str(error)) from error
        return torch.from_numpy(frames)

    def wave(self, file: RawFile, start_s: float) -> tuple[np.ndarray, float]:
        """A waveform around a moment, and where in it that lies, in seconds.

        Raises:
            MissingData: there is no sound there.
        """
        start_s += file.info.start_s
        try:
            return read_audio_around(file.path, start_s, self.clips.sound_s, self.clips.sample_rate)
        except MediaError as error:
            raise MissingData(str(error)) from error

    def picture(self, frames: Tensor, rng: ItemRandom) -> Tensor:
        """(3, T, S, S): augmented in training, cut from the middle elsewhere."""
        return self.augment(frames, rng.torch) if self.training else self.augment.views(frames)[1]

    def sound(self, wave: np.ndarray, offset_s: float, backwards: bool, rng: ItemRandom) -> Tensor:
        """(1, M, A): louder or softer, moved, and with hidden bands in training."""
        clips = self.clips
        if self.training:
            wave = (1 + clips.volume * rng.numpy.uniform(-1, 1)) * wave
            offset_s += clips.sound_shift_s * rng.numpy.uniform(-1, 1) if clips.sound_shift_s else 0.0
        made = torch.from_numpy(
            spectrogram(
                wave, clips.sample_rate, offset_s, clips.sound_s, clips.filters, clips.normalise_sound
            )
        )
        made = made.flip(-1) if backwards else made
        hidden = clips.spec_augment if self.training else None
        return made if hidden is None else spec_augment(made, hidden, rng.torch)


@ALIGNERS.register()
class RawAVAligner(RawAligner):
    """A clip at a random place, frames and sound of the same moment, in the views that `dataset.views` lists.

    The shifted clip starts at an independent random place, as published, or with `dataset.min_shift` at least
    so many seconds away (as far as the drawn places allow); where the file is no longer than a clip,
    `view_valid` is false. Reversal plays frames and sound backwards. Every view is augmented by draws of its
    own in training, and cut from the middle elsewhere.

    Returns `video` (V, 3, T, S, S), `audio` (V, 1, M, A), `view_valid` (V), without the first axis if there
    is one view, and `video_id`; `cmasks` of no words.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(RawKeys, Views):
        """Clips from video files and their views."""

    def __init__(self, config: DatasetConfig):
        super().__init__(config)
        self.views, self.min_shift = checked_views(config, by_loss=True), config.min_shift or 0

    def __call__(
        self, video_id: Path, video_feature: RawFile, text_feature: None, rng: ItemRandom
    ) -> dict[str, Any]:
        places = self.places(video_feature.info.duration_s, rng.numpy)
        shifted = [int(view.startswith("shift")) for view in self.views]
        read = {
            number: (
                self.frames(video_feature.path, places[number]),
                self.wave(video_feature, places[number]),
            )
            for number in sorted(set(shifted))
        }
        videos, sounds = [], []
        for view, number in zip(self.views, shifted, strict=True):
            (frames, heard), backwards = read[number], view.endswith("rev")
            sounds.append(self.sound(*heard, backwards, rng))
            videos.append(self.picture(frames.flip(0) if backwards else frames, rng))
        item = {
            "video": torch.stack(videos),
            "audio": torch.stack(sounds),
            "view_valid": torch.tensor([not number or places[0] != places[1] for number in shifted]),
            "cmasks": torch.zeros(len(videos), 1, dtype=torch.bool),
        }
        return {**alone(item), "video_id": video_id.stem}

    def places(self, length_s: float, rng: np.random.Generator) -> tuple[float, float]:
        """Where the clip and the shifted clip start, in seconds; equal where there is no room to shift."""
        places = rng.uniform(0, length_s - self.clips.length_s, CANDIDATES)
        distance = np.abs(places[1:] - places[0])
        far = np.flatnonzero(distance >= self.min_shift)
        return float(places[0]), float(places[1 + (far[0] if len(far) else distance.argmax())])


@ALIGNERS.register()
class RawVersionAligner(RawAligner):
    """A clip at a random place, augmented twice, and the sound of the same moment: what STiCA compares.

    The two versions are augmented in validation too, where nothing else tells them apart. Returns `video`
    (2, 3, T, S, S), `audio` (1, M, A), `video_id`; `cmasks` of no words.
    """

    def augmentation(self) -> ClipAugment:
        return self.clips.augment(box=True, jitter=0.8, gray=0.2, blur=0.5)

    def __call__(
        self, video_id: Path, video_feature: RawFile, text_feature: None, rng: ItemRandom
    ) -> dict[str, Any]:
        start_s = rng.numpy.uniform(0, video_feature.info.duration_s - self.clips.length_s)
        frames = self.frames(video_feature.path, start_s)
        return {
            "video": torch.stack([self.augment(frames, rng.torch) for _ in range(2)]),
            "audio": self.sound(*self.wave(video_feature, start_s), False, rng),
            "cmasks": torch.zeros(1, dtype=torch.bool),
            "video_id": video_id.stem,
        }
