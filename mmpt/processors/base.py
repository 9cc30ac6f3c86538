"""The four pluggable parts of a data set, and what a YAML names:

    meta_processor    index -> (video id, text id)
    video_processor   video id -> features, (seconds, D)
    text_processor    text id -> token ids, or timed captions {"start", "end", "cap"}
    aligner           features + tokens -> padded tensors caps, cmasks, vfeats, vmasks, ...

Letters: T text positions, F = max_video_len video positions (seconds), D feature width.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from unicodedata import normalize

import numpy as np
import torch

from mmpt.config import ConfigError, required
from mmpt.config.schema import DatasetConfig
from mmpt.processors.captions.captions import Captions
from mmpt.processors.store.rates import feature_rate, per_second
from mmpt.processors.tokens import SpecialIds, load_tokenizer, pack_captions
from mmpt.registry import ALIGNERS, META_PROCESSORS, TEXT_PROCESSORS, VIDEO_PROCESSORS
from mmpt.utils.seed import ItemRandom
from mmpt.utils.shardedtensor import load_feature
from mmpt.utils.text import check_id, first_of

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
NAMED = 5  # missing ids named in a log line


@dataclass(frozen=True)
class PublishedList:
    """A published list of items of a data set.

    Attributes:
        items: entries of the list (captions, clips, videos), before ids without features are left out.
        videos: different videos among them; None where not published.
        source: who says so.
    """

    items: int
    videos: int | None
    source: str

    def __str__(self) -> str:
        return f"{self.items}" + (f" of {self.videos} videos" if self.videos else "") + f" ({self.source})"


class MissingData(LookupError):
    """An item of the list has no features, no captions or no index entry."""


def needed(rng: ItemRandom | None, part: object) -> ItemRandom:
    """The random streams of an item, for a part that draws.

    Raises:
        ValueError: there are none.
    """
    if rng is None:
        raise ValueError(f"{type(part).__name__} draws: pass the random streams of the item (rng).")
    return rng


@META_PROCESSORS.register()
class MetaProcessor:
    """Lists the items of one split.

    Sub-classes fill `self.data`; `self.missing` maps a reason to the id of each item left out for it, for
    reports. They also know what may be said about the data set as a whole:

    Attributes:
        LIST: what stands behind train_path, val_path and test_path.
        FILES: other key of `dataset:` -> what stands behind it. The other three parts may have one too.
        PUBLISHED: split -> the lists of items that papers use; `test videos` where a test asks for the videos
            of a list of clips.
        GROUPS: whether an item is a group of videos, which a task composes anew every epoch
            (`random_candidates`, `set_candidates`).
    """

    LIST: ClassVar[str] = "list of items"
    FILES: ClassVar[Mapping[str, str]] = {}
    PUBLISHED: ClassVar[Mapping[str, Sequence[PublishedList]]] = {}
    GROUPS: ClassVar[bool] = False
    SPLIT_KEYS: ClassVar[Mapping[str, str]] = {
        "train": "train_path",
        "valid": "val_path",
        "test": "test_path",
    }

    def __init__(self, config: DatasetConfig):
        self.config = config
        self.split = config.split or "train"
        self.data: Any = ()  # a sequence or an array
        self.missing: dict[str, list[str]] = {}

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.data[index]

    def begin_epoch(self, rng: np.random.Generator) -> None:
        """Hook before the batches of a training epoch are drawn: consecutive items become a batch."""

    def videos(self, index: int) -> list[str]:
        """The videos that the item `index` is cut from."""
        return [str(bare_id(self[index][0]))]

    def segments(self) -> Iterator[tuple[str, list[tuple[float, float]]]]:
        """(video, its annotated segments in seconds) of every item with features `<vfeat_dir>/<video>.npy`.

        The id (video, start, end) is a segment; other items have none.
        """
        for index in range(len(self)):
            item = self[index][0]
            times = [item[1:]] if isinstance(item, tuple) and len(item) == 3 else []
            yield from ((video, times) for video in self.videos(index))

    def durations(self) -> dict[str, float]:
        """Video -> seconds, where the annotations say so."""
        return {}

    def split_path(self) -> str:
        """The list of this split, from the key that belongs to it."""
        return required(self.config, self.SPLIT_KEYS[self.split])

    def keep(
        self, items: Sequence[Item], present: Callable[[Item], bool], name: Callable[[Item], str], reason: str
    ) -> list[Item]:
        """The items that are present. The others are counted and named, or refused (dataset.on_missing:
        error).

        Raises:
            MissingData: something is missing and must not be, or nothing is left.
            TextError: an id is no name.
        """
        kept: list[Item] = []
        lost: list[Item] = []
        source = getattr(self.config, self.SPLIT_KEYS[self.split]) or type(self).__name__
        for item in items:
            check_id(name(item), source, folders=True)
            (kept if present(item) else lost).append(item)
        self.report_missing(reason, list(map(name, lost)))
        if not kept:
            raise MissingData(
                f"{source}: no item left of {len(items)}; {len(lost)} {reason}, e.g. "
                f"{[name(item) for item in lost[:NAMED]]}."
            )
        return kept

    def report_missing(self, reason: str, names: list[str]) -> None:
        """Record the ids of items that are left out, one entry per item, or refuse them."""
        if not names:
            return
        ids = list(dict.fromkeys(names))
        text = f"{self.split} split: {counted(names)} {reason}: {first_of(ids, NAMED)}"
        accents = sum(normalize("NFC", name) != normalize("NFD", name) for name in ids)
        if accents:
            text += f" ({accents} with accents, which names of files may spell in another way: NFC or NFD)"
        if self.config.on_missing == "error":
            raise MissingData(f"{text}. Provide them, or set dataset.on_missing: skip to leave them out.")
        logger.warning("%s; left out", text)
        self.missing.setdefault(reason, []).extend(names)

    def with_features(self, items: Sequence[Item], video: Callable[[Any], str] = itemgetter(0)) -> list[Item]:
        """The items whose video has features."""
        has_features = self.has_features()
        return self.keep(items, lambda item: has_features(video(item)), video, "have no features")

    def has_features(self) -> Callable[[str], bool]:
        """Whether `<vfeat_dir>/<id>.npy` exists, from one listing of the folder; with `dataset.videos`,
        whether there is a video file `<id>` or `<id>.*`."""
        if self.config.videos is not None:
            files = [path for pattern in ("*", "*/*") for path in Path(self.config.videos).glob(pattern)]
            return {name for path in files for name in (path.name, path.stem)}.__contains__
        folder = required(self.config, "vfeat_dir")
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"dataset.vfeat_dir={folder}: no such folder.")
        names = {entry.name for entry in os.scandir(folder)}
        return lambda video_id: f"{video_id}.npy" in names


@VIDEO_PROCESSORS.register()
class VideoProcessor:
    """Reads `<vfeat_dir>/<video id>.npy`, (time, D), any float type; gives (seconds, D)."""

    FILES: ClassVar[Mapping[str, str]] = {
        "vfeat_dir": "folder of <video id>.npy, (seconds, features), one row per second"
    }

    def __init__(self, config: DatasetConfig):
        self.vfeat_dir = Path(required(config, "vfeat_dir"))
        self.rate = feature_rate(config)
        self.first: tuple[Path, tuple[int, ...]] | None = (
            None  # file that was read first, and shape of its rows
        )

    def __call__(self, video_id: Any) -> np.ndarray:
        path = self.vfeat_dir / f"{video_id}.npy"
        try:
            feature = load_feature(path)
        except FileNotFoundError as error:
            cure = "Extract them, or correct dataset.vfeat_dir."
            if isinstance(video_id, tuple):
                cure = "YoucookVideoProcessor reads clips (video, start, end)."
            raise MissingData(f"{path}: no features for video {video_id!r}. {cure}") from error
        if self.first is None:
            self.first = path, feature.shape[1:]
        elif feature.shape[1:] != self.first[1]:
            raise ValueError(
                f"{path}: shape {feature.shape}, but {self.first[0]} has rows of {self.first[1]}: one is "
                "turned round, or of another backbone. Expected (seconds, D)."
            )
        return per_second(feature, self.rate)


@TEXT_PROCESSORS.register()
class TextProcessor:
    """Turns a string into token ids, without special tokens.

    Args:
        config: `dataset:` of the YAML.
        tokenizer: instead of the one that `dataset.bert_name` names.
    """

    def __init__(self, config: DatasetConfig, tokenizer: Any = None):
        self.config = config
        if tokenizer is not None:
            self.tokenizer = tokenizer

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(self.config.bert_name, self.config.use_fast)

    def __call__(self, text_id: Any, rng: ItemRandom | None = None) -> Any:
        return self.tokenize(text_id)

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text, in the words of `dataset.prompt`."""
        text = self.config.prompt.replace("{}", text) if self.config.prompt else text
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]


@TEXT_PROCESSORS.register()
class NoTextProcessor:
    """Passes on what the meta processor gives; there is no text, and no tokenizer is loaded."""

    def __init__(self, config: DatasetConfig):
        pass

    def __call__(self, text_id: Any, rng: ItemRandom | None = None) -> Any:
        return text_id


@ALIGNERS.register()
class Aligner:
    """Pads one video and one caption: the first F seconds, the first caption.

    Args:
        config: `dataset:` of the YAML.
        special: special token ids, instead of those of the tokenizer that `dataset.bert_name` names.

    Attributes:
        as_stored: features of float16 files stay float16; see `mmpt.datasets.hand_over`.
    """

    as_stored = False

    def __init__(self, config: DatasetConfig, special: SpecialIds | None = None):
        self.config = config
        self.max_video_len: int = required(config, "max_video_len")
        self.max_text_len: int = required(config, "max_len") - self.max_video_len  # T
        if special is not None:
            self.special = special

    @cached_property
    def special(self) -> SpecialIds:
        return SpecialIds.of(load_tokenizer(self.config.bert_name, self.config.use_fast))

    def __call__(
        self, video_id: Any, video_feature: np.ndarray, text_feature: Any, rng: ItemRandom | None = None
    ) -> dict[str, Any]:
        """One item.

        Args:
            video_id: goes through to the batch.
            video_feature: (seconds, D).
            text_feature: token ids, or timed captions.
            rng: random streams of this item; aligners that draw need them.

        Returns:
            caps (T), cmasks (T), vfeats (F, D), vmasks (F), video_id, and what sub-classes add.
        """
        vfeats, vmasks = self.build_video(video_feature, video_id)
        caps, cmasks = self.build_text(text_feature)
        return {"caps": caps, "cmasks": cmasks, "vfeats": vfeats, "vmasks": vmasks, "video_id": video_id}

    def build_text(self, text: Sequence[int] | Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """caps (T) and cmasks (T) of token ids, or of the first of timed captions."""
        if isinstance(text, Mapping):
            text = Captions.of(text).ids(0)
        caps, cmasks = self.pack([list(text)])
        return caps[0], cmasks[0]

    def _build_text_seq(self, text: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """`build_text` of token ids, by the name that papers print."""
        return self.build_text(text)

    def pack(self, captions: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """caps (B, T) and cmasks (B, T) of B lists of token ids."""
        return self._packed(captions, self.max_text_len)

    def _packed(self, captions: Sequence[Sequence[int]], n_columns: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The same with another number of columns."""
        counts = np.array([len(ids) for ids in captions], dtype=np.int64)
        words = np.array([token for ids in captions for token in ids], dtype=np.int64)
        caps, cmasks = pack_captions(words, np.cumsum(counts) - counts, counts, n_columns, self.special)
        return torch.from_numpy(caps), torch.from_numpy(cmasks)

    def build_video(
        self, feature: np.ndarray, video_id: Any, start: int = 0, end: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """vfeats (F, D) float32 and vmasks (F) of the seconds [start, end), cut at F seconds and at the end
        of the video."""
        ranges = np.array([[start, len(feature) if end is None else end]])
        checked = [check_feature(feature, video_id)]
        vfeats, vmasks = pack_videos(
            checked, np.zeros(1, np.int64), ranges, self.max_video_len, self.as_stored
        )
        return check_finite(vfeats, [video_id])[0], vmasks[0]


def counted(names: Sequence[str]) -> str:
    """`3 ids`, or `5 items of 3 ids` where some stand there several times."""
    n_ids = len(set(names))
    return f"{n_ids} ids" if n_ids == len(names) else f"{len(names)} items of {n_ids} ids"


def bare_id(video_id: Any) -> Any:
    """The id of a video that may come with its place in the shards, or with the seconds of a clip."""
    return video_id[0] if isinstance(video_id, tuple) else video_id


def check_feature(feature: Any, video_id: Any) -> np.ndarray:
    """The features of a video, refused unless they are a (seconds, D) array of at least one second."""
    if not isinstance(feature, np.ndarray) or feature.ndim != 2:
        raise ValueError(
            f"video {video_id!r}: features are {getattr(feature, 'shape', type(feature).__name__)}, "
            "expected an array (seconds, D)."
        )
    if not len(feature):
        raise MissingData(f"video {video_id!r} has features of zero seconds.")
    return feature


def pack_videos(
    features: Sequence[np.ndarray],
    which: np.ndarray,
    ranges: np.ndarray,
    length: int,
    as_stored: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut and pad B stretches of videos.

    Args:
        features: the videos, each (seconds, D).
        which: (B,) the video of each stretch.
        ranges: (B, 2) seconds [start, end) of each stretch; what lies beyond the video or exceeds F is cut.
        length: F.
        as_stored: float16 features stay so.

    Returns:
        vfeats (B, F, D) float32 unless `as_stored`, zero padded; vmasks (B, F) bool.
    """
    widths = {feature.shape[1] for feature in features}
    if len(widths) != 1:
        raise ValueError(f"videos of one batch have feature widths {sorted(widths)}; expected one backbone.")
    half = as_stored and all(feature.dtype == np.float16 for feature in features)
    vfeats = np.empty((len(which), length, widths.pop()), dtype=np.float16 if half else np.float32)
    counts = np.empty(len(which), dtype=np.int64)
    for row, (video, (start, end)) in enumerate(zip(which.tolist(), ranges.tolist(), strict=True)):
        stretch = features[video][start : min(end, start + length)]
        counts[row] = n = len(stretch)
        vfeats[row, :n] = stretch
        vfeats[row, n:] = 0
    return torch.from_numpy(vfeats), torch.from_numpy(np.arange(length) < counts[:, None])


def check_finite(vfeats: torch.Tensor, video_ids: Sequence[Any]) -> torch.Tensor:
    """The features, refused if they hold NaN or infinity: one such value would silently poison the whole
    model.

    Args:
        vfeats: (B, F, D), the B clips in equal groups, one group per video.
        video_ids: the videos, for the message.
    """
    # NaN and infinity survive a sum, which is the cheapest pass over the data
    sums = vfeats.sum(-1).float().view(len(video_ids), -1).sum(1)
    for video in torch.nonzero(~torch.isfinite(sums)).flatten().tolist():
        if not torch.isfinite(vfeats.view(len(video_ids), -1)[video]).all():
            raise ValueError(
                f"video {video_ids[video]!r}: features hold NaN or infinite values. Extract them again or "
                "drop the video from the list."
            )
    return vfeats


PARTS = {
    "meta_processor": META_PROCESSORS,
    "video_processor": VIDEO_PROCESSORS,
    "text_processor": TEXT_PROCESSORS,
    "aligner": ALIGNERS,
}


def build_parts(config: DatasetConfig, where: str = "") -> list[Any]:
    """Meta, video and text processor and aligner, as the keys of the same names say.

    Args:
        config: with the split to be read.
        where: the project file, for messages.

    Raises:
        ConfigError: a key that a part needs is not set.
        FileNotFoundError: a file or folder that a key names, or that should lie in that folder, is missing.
    """
    try:
        return [
            registry.get(getattr(config, key), f"{where}: dataset.{key}".removeprefix(": "))(config)
            for key, registry in PARTS.items()
        ]
    except ConfigError as error:
        problems = [dataclasses.replace(problem, file=problem.file or where) for problem in error.problems]
        raise ConfigError(problems) from error
    except FileNotFoundError as error:
        if error.filename is None:  # the message says it
            raise
        path = Path(error.filename)
        said = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
        keys = [key for key, value in said.items() if value in (str(path), str(path.parent))]
        named = f"dataset.{keys[0]}: " if keys else ""
        text = f"{where}: {named}{path}: no such file or folder (looked for in {os.getcwd()})."
        raise FileNotFoundError(text.removeprefix(": ")) from error
