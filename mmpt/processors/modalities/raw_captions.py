"""Clips of video files with what is said in them: HowTo100M's captions and a fixed word table, as GDT
reads them.

    dataset:
      meta_processor: RawCaptionMetaProcessor
      video_processor: RawVideoProcessor
      text_processor: RawCaptionTextProcessor
      aligner: RawCaptionAligner
      train_path: data/how2/howto.csv                   # header video_id, one id a line
      video_dir: data/how2/videos                       # <id>.mp4, ...
      caption_dir: data/how2/captions                   # <id>.csv with columns start, end, text (seconds)
      word_list: pretrained_models/dict.npy             # word k is row k + 1 of word2vec.pth
      raw: {frames: 30, fps: 16, size: 112, spec_augment: null}

An annotation `.json` instead, [{"video_id": "v0", "caption": ["chop an onion"]}], gives each item its first
caption, and its segment if it has one: for retrieval. Source: GDT (Patrick et al. 2020), HowTo100M.

Letters: V views of an item, T frames of S x S pixels, N words.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from mmpt.config import required
from mmpt.config.fields import Section, option
from mmpt.config.schema import DatasetConfig
from mmpt.processors.base import MissingData
from mmpt.processors.gdt import Views, alone, checked_views
from mmpt.processors.modalities.modalities import read_annotation
from mmpt.processors.modalities.raw_clips import (
    RawAligner,
    RawFile,
    RawKeys,
    ShuffledMetaProcessor,
    list_videos,
)
from mmpt.registry import ALIGNERS, META_PROCESSORS, TEXT_PROCESSORS
from mmpt.utils.seed import ItemRandom
from mmpt.utils.text import number, read_table
from mmpt.utils.vocabulary import Vocabulary


class Caption(NamedTuple):
    """What is said, and when, in seconds; the whole file where no times are known."""

    text: str
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class CaptionFiles(Section):
    """Where videos and captions lie."""

    video_dir: str | None = option(None, "folder of video files <id>.mp4, ..., and of the folders in it")
    caption_dir: str | None = option(None, "folder of <id>.csv with columns start, end, text")


@dataclass(frozen=True, kw_only=True)
class Words(Section):
    """Words as rows of a table."""

    word_list: str | None = option(None, ".npy array of words: word k is row k + 1 of model.word_table")
    max_words: int = option(20, "N, words of a caption", least=1)


@META_PROCESSORS.register()
class RawCaptionMetaProcessor(ShuffledMetaProcessor):
    """Videos of a csv with a column video_id, each with its csv of captions; or items of a json
    annotation, each with its first caption. Item -> (path, path of the captions, or a caption)."""

    Config = CaptionFiles
    LIST = "csv with a column video_id, or json annotation"

    def __init__(self, config: DatasetConfig):
        super().__init__(config)
        folder, path = Path(required(config, "video_dir")), self.split_path()
        if not folder.is_dir():
            raise FileNotFoundError(f"dataset.video_dir={folder}: no such folder.")
        files = {
            file.relative_to(folder).with_suffix("").as_posix(): file for file in sorted(list_videos(folder))
        }
        said: list[tuple[str, Path | Caption]]
        if path.endswith(".json"):
            said = [
                (item.source, Caption(text, *(item.segment or ())))
                for item in read_annotation(path)
                for text in item.captions[:1]
            ]
        else:
            captions = Path(required(config, "caption_dir"))
            said = [
                (row["video_id"], captions / f"{row['video_id']}.csv")
                for row in read_table(path, ["video_id"])
            ]
        present = [(video, text) for video, text in said if video in files]
        self.report_missing("have no video file", [video for video, _ in said if video not in files])
        kept = self.keep(
            present,
            lambda item: isinstance(item[1], Caption) or item[1].is_file(),
            lambda item: item[0],
            "have no captions",
        )
        self.data = self.in_order = [(files[video], text) for video, text in kept]

    def videos(self, index: int) -> list[str]:
        return [self.data[index][0].stem]


@TEXT_PROCESSORS.register()
class RawCaptionTextProcessor:
    """Captions of a csv, or the one given."""

    def __init__(self, config: DatasetConfig):
        pass

    def __call__(self, text_id: Path | Caption, rng: ItemRandom | None = None) -> list[Caption]:
        return [text_id] if isinstance(text_id, Caption) else read_captions(text_id)


def read_captions(path: Path) -> list[Caption]:
    """The rows of <id>.csv.

    Raises:
        TextError: a column is absent, or a time no number.
    """
    return [
        Caption(row["text"], *(number(row[key], f"{path}, row {n}: {key}") for key in ("start", "end")))
        for n, row in enumerate(read_table(path, ["start", "end", "text"]), 2)
    ]


@ALIGNERS.register()
class RawCaptionAligner(RawAligner):
    """A clip out of a random caption's time with the words of that caption, in the views of `dataset.views`.

    The shifted clip is of another caption, drawn independently, as published; reversal plays frames backwards
    and turns the words round. Frames are a square of the picture, at random in training unless
    `dataset.center_crop`, between 0 and 1, without other augmentation.

    Returns `video` (V, 3, T, S, S), `caps` (V, N) ids, `cmasks` (V, N), `view_valid` (V), without the
    first axis if there is one view, and `video_id`.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(RawKeys, CaptionFiles, Words, Views):
        """Clips, captions and their views."""

        center_crop: bool = option(False, "cut the middle of the picture in training too")
        least_caption_s: float = option(
            4.0, "the time of a shorter caption is widened to so many seconds", above=0
        )

    def __init__(self, config: DatasetConfig):
        super().__init__(config)
        self.views = checked_views(config, by_loss=True)
        self.words = Vocabulary.from_file(required(config, "word_list"), config.max_words)
        self.clip_s = self.clips.frames / self.clips.fps

    def __call__(
        self, video_id: Path, video_feature: RawFile, text_feature: list[Caption], rng: ItemRandom
    ) -> dict[str, Any]:
        n_rows = len(text_feature)
        drawn = rng.numpy.integers(n_rows, size=2).tolist() if self.training else [0, n_rows - 1]
        shifted = [int(view.startswith("shift")) for view in self.views]
        read = {n: self.clip(video_feature, text_feature[drawn[n]], rng) for n in sorted(set(shifted))}
        videos, words = [], []
        for view, n in zip(self.views, shifted, strict=True):
            (video, ids), backwards = read[n], view.endswith("rev")
            videos.append(video.flip(1) if backwards else video)
            words.append(ids.flip(0) if backwards else ids)  # padding comes first, as released
        caps = torch.stack(words)
        item = {
            "video": torch.stack(videos),
            "caps": caps,
            "cmasks": caps > 0,
            "view_valid": torch.tensor([not n or drawn[0] != drawn[1] for n in shifted]),
        }
        return {**alone(item), "video_id": video_id.stem}

    def clip(self, file: RawFile, caption: Caption, rng: ItemRandom) -> tuple[Tensor, Tensor]:
        """(3, T, S, S) in [0, 1], and ids (N)."""
        room = max(0.0, file.info.duration_s - self.clip_s)
        if caption.start_s is None or caption.end_s is None:
            start_s = room * (rng.numpy.uniform() if self.training else 0.5)
        else:
            if caption.start_s >= file.info.duration_s:
                raise MissingData(
                    f"{file.path}: has {file.info.duration_s:.1f} s, but a caption at {caption.start_s:g} s."
                )
            first, last = caption_window(caption.start_s, caption.end_s, self.config.least_caption_s)
            latest = max(first, last - round(self.clip_s))
            start_s = rng.numpy.integers(first, latest + 1) if self.training else (first + latest) / 2
            start_s = min(float(start_s), room)
        return self.square(self.frames(file.path, start_s), rng), self.words.encode([caption.text])[0]

    def square(self, frames: Tensor, rng: ItemRandom) -> Tensor:
        """uint8 (T, H, W, 3) -> (3, T, S, S) in [0, 1]."""
        clip = frames.permute(0, 3, 1, 2) / 255
        side = min(clip.shape[-2:])
        draws = rng.numpy.uniform(size=2) if self.training and not self.config.center_crop else (0.5, 0.5)
        top, left = (int((n - side) * draw) for n, draw in zip(clip.shape[-2:], draws, strict=True))
        size = (self.clips.size, self.clips.size)
        cut = clip[..., top : top + side, left : left + side]
        return functional.interpolate(cut, size, mode="bilinear", align_corners=False).transpose(0, 1)


def caption_window(start_s: float, end_s: float, least_s: float = 4.0) -> tuple[int, int]:
    """Whole seconds of a caption, a shorter one widened on both sides to `least_s`, but not before 0."""
    if end_s - start_s < least_s:
        more = (least_s - (end_s - start_s)) / 2
        start_s, end_s = max(0.0, start_s - more), end_s + more
    return int(start_s), int(end_s)
