"""Clips with captions and any number of further modalities, each a stream of features in a file of its own,
or the subtitles.

An annotation (train_path, val_path, test_path) is a JSON list:

    [{"clip_id": "v0_3", "video_id": "v0", "segment": [4, 15], "caption": ["chop an onion", "cut it"],
    "subtitle": "now chop"}, ...]

The id is the first present of clip_id, video_id, image_id, image, id; the captions are the first present of
desc, caption, vast_cap, a string or a list, and rows of one id are joined. With `segment` (seconds) the
features are those of `video_id` in that time, else those of the id from begin to end. An empty subtitle is a
missing one. For question answering a row has `question` and `answer`, with or without captions: texts (a list
of answers to one question: alternatives), or lists of as many questions as answers.

`dataset.modalities` names the modalities besides the captions, in order:

    # <path>/<id>.npy, (time, width), or shards with <split>_meta.pkl; rate = vectors per second
    video: {path: data/feat/video, width: 512, rate: 1.0, max_len: 32}
    audio: {path: data/feat/audio, width: 128, rate: 2.0, max_len: 64}
    # feature maps, (time, 7, 7, width)
    maps: {path: data/feat/maps, width: 512, map: [7, 7]}
    # files for an encoder: `raw_streams`
    video: {path: data/videos, raw: frames, size: 224, max_len: 8}
    # no path: text of the annotation
    subtitle: {max_len: 70}

With `versions: 2` a modality is stored as two augmentations of the same footage, <id>_aug0.npy and
<id>_aug1.npy (width: of one).

Letters: K modalities, L = max_len positions of one, T caption columns, C captions of an item (the most of any
item), D width, H x W positions of a map.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from mmpt.config import required
from mmpt.config.conditions import letters_of
from mmpt.config.fields import Section, option
from mmpt.config.schema import DatasetConfig
from mmpt.media.frames import chunk_positions
from mmpt.processors.base import (
    Aligner,
    MetaProcessor,
    MissingData,
    PublishedList,
    TextProcessor,
    VideoProcessor,
    check_finite,
    needed,
)
from mmpt.processors.gdt import Reversal
from mmpt.processors.masking import IGNORED, mask_written
from mmpt.processors.modalities.raw_streams import RawStream, Reader
from mmpt.processors.sets.how2 import shard_split
from mmpt.processors.store.features import FeatureFolder, FeatureShards, version_suffixes
from mmpt.processors.tokens import SpecialIds
from mmpt.registry import ALIGNERS, META_PROCESSORS, TEXT_PROCESSORS, VIDEO_PROCESSORS
from mmpt.utils.seed import ItemRandom
from mmpt.utils.text import (
    ID_KEYS,
    annotated_id,
    check_id,
    check_kind,
    check_record,
    number,
    read_annotations,
    shown,
)

logger = logging.getLogger(__name__)

CAPTION_KEYS = ("desc", "caption", "vast_cap")
REVERSED = "_rev"  # ends the names of features of frames played backwards
RATE_SAMPLE, RATE_TOLERANCE = (
    64,
    1.25,
)  # items looked at, and how far the durations of two modalities may differ in the median


@dataclass(frozen=True, kw_only=True)
class Modality(Section):
    """One entry of `dataset.modalities`."""

    name: str = ""
    path: str | None = option(None, "folder of features; null: the subtitles")
    width: int = option(512, "D of the features", least=1)
    rate: float = option(1.0, "vectors per second", above=0)
    max_len: int = option(32, "L, positions (of a subtitle: with its three special tokens)", least=1)
    map: tuple[int, int] | None = option(None, "H, W of feature maps; null: one vector a moment")
    versions: int = option(1, "stored augmentations, laid side by side along the width", least=1)
    raw: str | None = option(
        None, "frames or sound: files as an encoder reads them, see `RawStream`", one_of=("frames", "sound")
    )
    size: int = option(224, "raw frames: pixels", least=1)
    transform: str = option("none", "raw frames: what training draws", one_of=("none", "crop_flip"))
    pixels: str = option("clip", "raw frames: standardized as", one_of=("clip", "imagenet", "siglip"))
    filters: int = option(64, "raw sound: mel filters", least=1)
    slice_frames: int = option(1024, "raw sound: spectrogram frames of a slice", least=1)
    energies: str = option(
        "beats", "raw sound: made as for this network (AST has 128 filters)", one_of=("beats", "ast")
    )

    def __post_init__(self):
        super().__post_init__()
        if self.map is not None and min(self.map) < 1:
            raise ValueError(
                f"map={list(self.map)}: expected the height and width of the maps, such as [7, 7]."
            )
        if self.raw is not None and self.path is None:
            raise ValueError(f"raw: {self.raw} needs path, the folder of the files.")

    @property
    def is_text(self) -> bool:
        return self.path is None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one position: (versions * D,) or (H, W, versions * D); of files see `RawStream.shape`."""
        if self.raw is not None:
            return self.files().shape
        return (*(self.map or ()), self.versions * self.width)

    def files(self) -> RawStream:
        """The files of a modality with `raw`."""
        return RawStream(self)


@dataclass(frozen=True, kw_only=True)
class ModalityKeys(Section):
    """The modalities besides the captions."""

    modalities: Mapping[str, Mapping[str, Any]] | None = option(
        None,
        "N modalities: name -> {path, width, rate, max_len, map, versions}; without path: subtitles; null "
        "takes an included one out",
        holds=Modality,
    )
    caption_keys: list = option(
        list(CAPTION_KEYS),
        "keys of an item that may hold its captions; the first there counts. VAST-27M also has vision_cap, "
        "of sight alone, and audio_cap, of sound alone",
    )
    condition_captions: Mapping[str, list] | None = option(
        None,
        "conditions of losses that have captions of their own in training -> keys of an item that may hold "
        "them, such as {tv: [vision_cap], ta: [audio_cap]}; every item needs one",
    )

    def __post_init__(self):
        super().__post_init__()
        for name in self.condition_captions or {}:
            letters_of(name)


def read_modalities(config: DatasetConfig) -> list[Modality]:
    """The entries of `dataset.modalities`.

    Raises:
        ValueError: none, an unknown key, or a value out of range.
    """
    defaults = {"max_len": config.max_video_len or Modality.max_len}
    modalities = [
        replace(Modality.from_yaml({**defaults, **entry}, f"dataset.modalities.{name}"), name=name)
        for name, entry in required(config, "modalities").items()
    ]
    if not modalities:
        raise ValueError("dataset.modalities names no modality; name at least one besides the captions.")
    return modalities


def own_captions(config: DatasetConfig) -> dict[str, list[str]]:
    """Letters of a condition -> keys of its captions (`dataset.condition_captions`)."""
    return {letters_of(name): keys for name, keys in (config.condition_captions or {}).items()}


class Item(NamedTuple):
    """One row of an annotation."""

    id: str
    source: str  # whose features
    segment: tuple[float, float] | None  # seconds of them; None: all
    captions: tuple[str, ...]
    subtitle: str
    questions: tuple[tuple[str, tuple[str, ...]], ...] = ()  # each with the answers that are right
    own: tuple[tuple[str, ...], ...] = ()  # captions of each condition that has some of its own


def read_annotation(
    path: str | Path, caption_keys: Sequence[str] = CAPTION_KEYS, own: Sequence[Sequence[str]] = ()
) -> list[Item]:
    """The items of an annotation file, with the captions that the first present of `caption_keys` holds, and
    those of each entry of `own` likewise.

    Raises:
        FileNotFoundError: no file.
        ValueError: not such a file; names row and key.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"{path}: no such annotation (dataset.train_path, val_path and test_path name one each)."
        )
    items: dict[str, Item] = {}
    for index, row in enumerate(read_annotations(path)):
        where = f"{path}: row {index}"
        check_record(row, where)
        item_id = annotated_id(row)
        questions = _questions(row, where)
        if item_id is None:
            raise _no(where, "id", ID_KEYS, row)
        check_id(item_id, where, folders=True)
        captions = _captions(row, caption_keys, where, optional=bool(questions))
        apart = tuple(_captions(row, keys, where) for keys in own)
        if not all(apart):
            raise _no(where, "caption", own[apart.index(())], row)
        if item_id in items:
            known = items[item_id]
            items[item_id] = known._replace(
                captions=known.captions + captions,
                questions=known.questions + questions,
                own=tuple(map(operator.add, known.own, apart)),
            )
            continue
        segment = row.get("segment")
        if segment is not None:
            here = f"{where} ({item_id}): segment"
            segment = [number(time, here) for time in check_kind(segment, list, here)]
            if not (len(segment) == 2 and 0 <= segment[0] < segment[1]):
                raise ValueError(f"{here} is {segment}, expected [start, end] in seconds, start < end.")
        source = item_id if segment is None else str(row.get("video_id", item_id))
        check_id(source, where, folders=True)
        items[item_id] = Item(
            item_id,
            source,
            None if segment is None else tuple(segment),
            captions,
            check_kind(row.get("subtitle") or "", str, f"{where} ({item_id}): subtitle").strip(),
            questions,
            apart,
        )
    if not items:
        raise ValueError(f"{path}: the annotation lists no item.")
    return list(items.values())


def _captions(
    row: Mapping[str, Any], keys: Sequence[str], where: str, optional: bool = False
) -> tuple[str, ...]:
    """Those that the first present of some keys holds."""
    key = next((key for key in keys if row.get(key) is not None), None)
    if key is None and optional:
        return ()
    if key is None:
        raise _no(where, "caption", keys, row)
    captions = row[key]
    captions = (
        (captions,) if isinstance(captions, str) else tuple(check_kind(captions, list, f"{where}: {key}"))
    )
    for caption in captions:
        check_kind(caption, str, f"{where}: {key}")
    return captions


def _no(where: str, what: str, keys: Sequence[str], row: Mapping[str, Any]) -> ValueError:
    expected = f"expected one of the keys {', '.join(keys)}"
    return ValueError(f"{where} has no {what}; {expected}, got {shown(', '.join(row))}.")


def _questions(row: Mapping[str, Any], where: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The questions of a row, each with its right answers."""
    asked, answers = row.get("question"), row.get("answer")
    if asked is None:
        return ()
    if isinstance(asked, str):
        asked, answers = [asked], [answers]
    for question in check_kind(asked, list, f"{where}: question"):
        check_kind(question, str, f"{where}: question")
    if not isinstance(answers, list) or len(answers) != len(asked) or None in answers:
        expected = "a list of questions needs a list of as many answers"
        raise ValueError(
            f"{where} has {len(asked)} question(s) and no answer to each: {expected} (key answer)."
        )
    return tuple(
        (question, tuple(map(str, answer)) if isinstance(answer, list) else (str(answer),))
        for question, answer in zip(asked, answers, strict=True)
    )


def open_store(
    modality: Modality, config: DatasetConfig, suffix: str = ""
) -> FeatureFolder | FeatureShards | RawStream:
    """The features of a modality, or what an encoder reads."""
    return modality.files() if modality.raw is not None else open_features(modality, config, suffix)


def open_features(
    modality: Modality, config: DatasetConfig, suffix: str = ""
) -> FeatureFolder | FeatureShards:
    """Shards where the folder of the modality holds the index of this split, else files, whose names end with
    `suffix`."""
    split = shard_split(config)
    assert modality.path is not None  # subtitles have no features
    if not suffix and os.path.exists(f"{modality.path}/{split}_meta.pkl"):
        return FeatureShards(modality.path, split)
    suffixes = [suffix + end for end in version_suffixes(modality.versions)]
    return FeatureFolder(modality.path, suffixes, f"dataset.modalities.{modality.name}.path")


def lacking(items: Sequence[Item], config: DatasetConfig) -> dict[str, list[str]]:
    """Modality -> ids of the items that lack it."""
    missing = {}
    for modality in read_modalities(config):
        if modality.is_text:
            missing[modality.name] = [item.id for item in items if not item.subtitle]
            continue
        store = open_store(modality, config)
        sources = {item.source for item in items}
        absent = {source for source in sources if source not in store}
        missing[modality.name] = [item.id for item in items if item.source in absent]
    return missing


@META_PROCESSORS.register()
class ModalityMetaProcessor(MetaProcessor):
    """Items of an annotation; item -> (Item, Item).

    dataset.on_missing says what becomes of items that lack a modality: `mask` keeps them, `drop` (or skip)
    leaves them out, `error` refuses them. Items that lack all of them are never kept. Items of a test set
    carry all their captions, padded by "" to the most of any item, and all their questions likewise. In
    training each question is an item of its own.

    Raises:
        MissingData: a modality is absent everywhere, or is missing and must not be.
        ValueError: durations show that a rate is wrong.
    """

    LIST = "JSON list of items: clip_id or video_id, caption, and optionally segment and subtitle"
    PUBLISHED: ClassVar = {
        "test": [
            PublishedList(1000, 1000, "GRAM's MSR-VTT"),
            PublishedList(1003, 1003, "GRAM's DiDeMo"),
            PublishedList(4917, 4917, "GRAM's ActivityNet"),
            PublishedList(1500, 1500, "GRAM's VATEX"),
            PublishedList(3216, 419, "GRAM's YouCook2"),
        ]
    }

    Config = ModalityKeys

    def __init__(self, config: DatasetConfig):
        super().__init__(config)
        own = own_captions(config) if self.split != "test" else {}
        items = read_annotation(self.split_path(), config.caption_keys, [*own.values()])
        missing = lacking(items, config)
        for name, ids in missing.items():
            if len(ids) == len(items):
                place = read_modalities(config)[list(missing).index(name)].path or self.split_path()
                raise MissingData(
                    f"dataset.modalities.{name}: none of the {len(items)} items has it in {place}. "
                    "Correct or remove it."
                )
        absent = {name: set(ids) for name, ids in missing.items()}
        items = self.keep(
            items,
            lambda item: any(item.id not in ids for ids in absent.values()),
            _id,
            "have no modality at all",
        )
        for name, gone in absent.items():
            if config.on_missing != "mask":
                items = self.keep(items, lambda item: item.id not in gone, _id, f"have no {name}")
            elif gone:
                logger.info(
                    "%s split: %d of %d items have no %s (masked)", self.split, len(gone), len(items), name
                )
        _check_rates(items, config)
        if self.split != "test":
            items = [
                item._replace(questions=item.questions[k : k + 1])
                for item in items
                for k in range(max(1, len(item.questions)))
            ]
        self.data = items
        self.n_captions = max(1, *(len(item.captions) for item in items))
        self.n_questions = max(len(item.questions) for item in items)

    def __getitem__(self, index: int) -> tuple[Item, Item]:
        item = self.data[index]
        if self.split == "test":
            item = item._replace(
                captions=item.captions + ("",) * (self.n_captions - len(item.captions)),
                questions=item.questions + (("", ()),) * (self.n_questions - len(item.questions)),
            )
        return item, item

    def videos(self, index: int) -> list[str]:
        return [self.data[index].source]

    def segments(self) -> Iterator[tuple[str, list[tuple[float, float]]]]:
        """None: each modality has a folder of its own."""
        return iter(())


def _id(item: Item) -> str:
    return item.id


def _check_rates(items: Sequence[Item], config: DatasetConfig) -> None:
    """All modalities of an item last equally long, or a rate is wrong."""
    streams = {
        modality: open_features(modality, config)
        for modality in read_modalities(config)
        if not modality.is_text and modality.raw is None
    }
    if len(streams) < 2:
        return
    (first, reference), *others = streams.items()
    sources = list(dict.fromkeys(item.source for item in items[:RATE_SAMPLE] if item.source in reference))
    for modality, store in others:
        row = max(1 / modality.rate, 1 / first.rate)  # seconds that rounding explains
        lengths = [
            (len(store(s)) / modality.rate, len(reference(s)) / first.rate) for s in sources if s in store
        ]
        ratios = [1.0 if abs(own - other) <= row else own / other for own, other in lengths]
        ratio = float(np.median(ratios)) if ratios else 1.0
        if not 1 / RATE_TOLERANCE < ratio < RATE_TOLERANCE:
            raise ValueError(
                f"dataset.modalities.{modality.name}.rate={modality.rate} and "
                f"{first.name}.rate={first.rate} do not match: by them "
                f"{modality.name} lasts {ratio:.2f} times as long as {first.name}. Give vectors per second."
            )


@VIDEO_PROCESSORS.register()
class ModalityVideoProcessor(VideoProcessor):
    """Item -> {modality: (time, ...) features of its segment, or what reads them from a raw file; None where
    it is missing}.

    With dataset.reversal: precomputed also `<modality>_rev`: the same seconds of files <id>_rev.npy, whose
    time runs backwards.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(ModalityKeys, Reversal):
        """The modalities, and whether reversed features are stored."""

    def __init__(self, config: DatasetConfig):
        streams = [modality for modality in read_modalities(config) if not modality.is_text]
        self.stores = {modality: open_store(modality, config) for modality in streams}
        backwards = streams if config.reversal == "precomputed" else []
        self.reversed_stores = {modality: open_store(modality, config, REVERSED) for modality in backwards}

    def __call__(self, video_id: Item) -> dict[str, np.ndarray | Reader | None]:
        forwards = {
            modality.name: self._window(modality, store, video_id) for modality, store in self.stores.items()
        }
        backwards = {
            m.name + REVERSED: self._window(m, store, video_id, True)
            for m, store in self.reversed_stores.items()
        }
        return forwards | backwards

    def _window(
        self,
        modality: Modality,
        store: FeatureFolder | FeatureShards | RawStream,
        item: Item,
        mirrored: bool = False,
    ) -> np.ndarray | Reader | None:
        if item.source not in store:
            return None
        if isinstance(store, RawStream):
            return store.reader(item.source, item.segment)
        feature = store(item.source)
        if feature.shape[1:] != modality.shape:
            raise ValueError(
                f"{modality.path}: {modality.name} of {item.source!r} has shape {feature.shape}, expected "
                f"(time, {', '.join(map(str, modality.shape))}): see "
                f"dataset.modalities.{modality.name}.width and map."
            )
        if item.segment is not None:
            start, end = (
                math.floor(item.segment[0] * modality.rate),
                math.ceil(item.segment[1] * modality.rate),
            )
            feature = (
                feature[max(0, len(feature) - end) : max(0, len(feature) - start)]
                if mirrored
                else feature[start:end]
            )
        return feature if len(feature) else None


@TEXT_PROCESSORS.register()
class ModalityTextProcessor(TextProcessor):
    """Item -> {"captions": lists of token ids, "subtitle": token ids, empty where it is missing,
    "questions": lists of token ids, "answer": token ids of the answer to the first}.

    In training one caption and one right answer are drawn, in validation the first is taken; a test has all
    captions and questions. With dataset.condition_captions also "own": token ids of one caption of each.
    """

    def __call__(self, text_id: Item, rng: ItemRandom | None = None) -> dict[str, Any]:
        captions = text_id.captions or ("",)
        answers = text_id.questions[0][1] if text_id.questions else ()
        if self.config.split != "test":
            captions = (self._one(captions, rng),)
        return {
            "captions": [self.tokenize(caption) for caption in captions],
            "subtitle": self.tokenize(text_id.subtitle),
            "questions": [self.tokenize(question) for question, _ in text_id.questions],
            "answer": self.tokenize(self._one(answers, rng)) if answers else [],
            "own": [self.tokenize(self._one(texts, rng)) for texts in text_id.own],
        }

    def _one(self, texts: Sequence[str], rng: ItemRandom | None) -> str:
        """A text of several: drawn in training, else the first."""
        in_training = (self.config.split or "train") == "train"
        return texts[int(needed(rng, self).numpy.integers(len(texts)))] if in_training else texts[0]


def sample_positions(n: int, length: int, mode: str, rng: np.random.Generator | None = None) -> np.ndarray:
    """Which of n positions to keep, at most `length`, in order.

    Args:
        mode: chunk_random (a random one of each of `length` nearly equal chunks, the first ones larger),
            chunk_middle (the middle one), or uniform (evenly spaced, first and last included).
        rng: for chunk_random.
    """
    if n <= length:
        return np.arange(n)
    if mode == "uniform":
        return np.linspace(0, n - 1, length).round().astype(np.int64)
    return chunk_positions(n, length, rng if mode == "chunk_random" else None)


@ALIGNERS.register()
class ModalityAligner(Aligner):
    """Pads the modalities of an item.

    Returns, per item: `caps`, `cmasks` (T) of the caption, or (C, T) with `caption_valid` (C) in a test set;
    `<name>_feats` (L, D) and `<name>_masks` (L) of each stream of features; `<name>_caps`, `<name>_cmasks`
    (L) of a subtitle; `present` (K) bool in the order of dataset.modalities; `video_id`, the item's id. In
    place of a missing modality stand zeros (a subtitle without words), masked.

    Outside of tests, with dataset.condition_captions, `caps_<letters>`, `cmasks_<letters>` (T') of each.

    For models that write: with dataset.mask_captions `masked_caps` and `caption_labels` (T), see
    `mask_written`, and those of each condition; of annotations with questions `question_caps`,
    `question_cmasks` (Q), `masked_answers`, `answer_cmasks` and `answer_labels` (A). A test set has
    `references`, the captions as texts, and of questions `question_caps`, `question_cmasks` (N, Q),
    `questions` and `answers` as texts, "" and () where an item has fewer than others.

    dataset.modality_dropout hides each modality of a training item with that probability, but never all of
    them.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(ModalityKeys):
        """What an item shows of each modality."""

        modality_dropout: float = option(
            0.0,
            "N modalities: probability of hiding each modality of a training item, never all",
            least=0,
            most=1,
        )
        frame_sampling: str = option(
            "chunk",
            "N modalities, streams longer than max_len: one of each chunk at random (chunk_random), its "
            "middle (chunk_middle), uniform; "
            "chunk = random in training, middle else",
            one_of=("chunk", "chunk_random", "chunk_middle", "uniform"),
        )
        mask_captions: float | None = option(
            None, "share of a caption's words that a writing model guesses; null: none", above=0, most=1
        )
        question_len: int | None = option(None, "text columns of a question; null: as of a caption", least=4)
        condition_len: int | None = option(
            None, "text columns of captions of condition_captions; null: as of other captions", least=4
        )
        answer_len: int = option(11, "text columns of an answer, its three special tokens included", least=4)
        mask_answers: float = option(0.99, "share of an answer's words to guess", above=0, most=1)

    def __init__(self, config: DatasetConfig, special: SpecialIds | None = None):
        super().__init__(config, special)
        self.modalities = read_modalities(config)
        self.in_training = (config.split or "train") == "train"
        mode = config.frame_sampling
        self.sampling = mode if mode != "chunk" else ("chunk_random" if self.in_training else "chunk_middle")
        if not 0 <= config.modality_dropout < 1:
            raise ValueError(
                f"dataset.modality_dropout={config.modality_dropout}: expected a probability below 1."
            )

    def __call__(
        self,
        video_id: Item,
        video_feature: Mapping[str, Any],
        text_feature: Any,
        rng: ItemRandom | None = None,
    ) -> dict[str, Any]:
        words = text_feature["subtitle"]
        video_feature = {
            m.name: self._read(m, video_feature[m.name], rng) for m in self.modalities if not m.is_text
        }
        present = np.array(
            [bool(words) if m.is_text else video_feature[m.name] is not None for m in self.modalities]
        )
        if not present.any():
            raise MissingData(
                f"{video_id.id!r} has none of the modalities {', '.join(m.name for m in self.modalities)} "
                "in its segment."
            )
        if self.config.on_missing != "mask" and not present.all():
            names = [m.name for m, there in zip(self.modalities, present, strict=True) if not there]
            raise MissingData(
                f"{video_id.id!r} has no {', '.join(names)} in its segment. Set dataset.on_missing: mask "
                "to keep such items."
            )
        if self.in_training and self.config.modality_dropout:
            present = self._drop(present, needed(rng, self).numpy)
        item: dict[str, Any] = {"video_id": video_id.id, "present": torch.from_numpy(present)}
        caps, cmasks = self.pack(text_feature["captions"])
        if self.config.split == "test":
            item |= {
                "caps": caps,
                "cmasks": cmasks,
                "caption_valid": torch.tensor([bool(caption) for caption in video_id.captions or ("",)]),
                "references": [caption for caption in video_id.captions if caption],
            }
        else:
            item |= self._caption(caps[0], cmasks[0], rng)
            for letters, words_of in zip(own_captions(self.config), text_feature.get("own", ()), strict=True):
                caps, cmasks = self._packed([words_of], self.config.condition_len or self.max_text_len)
                caption = self._caption(caps[0], cmasks[0], rng)
                item |= {f"{name}_{letters}": x for name, x in caption.items()}
        if video_id.questions:
            item |= self._asked(video_id, text_feature, rng)
        for modality, there in zip(self.modalities, present.tolist(), strict=True):
            if modality.is_text:
                item |= self._subtitle(modality, words if there else [])
            else:
                item |= self._stream(modality, video_feature[modality.name] if there else None, video_id, rng)
        return item

    def _read(
        self, modality: Modality, feature: np.ndarray | Reader | None, rng: ItemRandom | None
    ) -> np.ndarray | None:
        """Features as they are; files as their encoder takes them. A file that cannot be read counts as
        missing under dataset.on_missing: mask, and is named."""
        if modality.raw is None or feature is None:
            return feature
        try:
            return feature(modality.max_len, needed(rng, self).numpy if self.in_training else None)
        except MissingData as error:
            if self.config.on_missing != "mask":
                raise
            logger.warning("%s; masked", error)
            return None

    def _caption(
        self, caps: torch.Tensor, cmasks: torch.Tensor, rng: ItemRandom | None
    ) -> dict[str, torch.Tensor]:
        """A packed caption (T), and what a writing model reads of it."""
        item = {"caps": caps, "cmasks": cmasks}
        if self.config.mask_captions:
            masked = self._masked(caps, cmasks, self.config.mask_captions, rng)
            item |= dict(zip(("masked_caps", "caption_labels"), masked, strict=True))
        return item

    def _asked(self, item: Item, text_feature: Mapping[str, Any], rng: ItemRandom | None) -> dict[str, Any]:
        """Questions, and in training the answer to the one that there is."""
        n_columns = self.config.question_len or self.max_text_len
        caps, cmasks = self._packed(text_feature["questions"], n_columns)
        if self.config.split == "test":
            questions, answers = zip(*item.questions, strict=True)
            texts = {"questions": questions, "answers": answers}
            return {"question_caps": caps, "question_cmasks": cmasks, **texts}
        answer, answer_mask = (x[0] for x in self._packed([text_feature["answer"]], self.config.answer_len))
        masked, labels = self._masked(answer, answer_mask, self.config.mask_answers, rng)
        return {
            "question_caps": caps[0],
            "question_cmasks": cmasks[0],
            "masked_answers": masked,
            "answer_cmasks": answer_mask,
            "answer_labels": labels,
        }

    def _masked(
        self, caps: torch.Tensor, cmasks: torch.Tensor, rate: float, rng: ItemRandom | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A packed text (T) with some words masked, and their labels (T)."""
        read = cmasks.clone()
        read[1] = False  # the [SEP] of the video: no model that writes reads it
        random = needed(rng, self).python
        (masked,), (labels,) = mask_written([caps[read].tolist()], rate, self.special, random)
        inputs, wanted = caps.clone(), torch.full_like(caps, IGNORED)
        inputs[read], wanted[read] = torch.tensor(masked), torch.tensor(labels)
        return inputs, wanted

    def _drop(self, present: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        kept = present & (rng.random(len(present)) >= self.config.modality_dropout)
        if not kept.any():
            kept[rng.choice(np.flatnonzero(present))] = True
        return kept

    def _subtitle(self, modality: Modality, words: list[int]) -> dict[str, torch.Tensor]:
        caps, cmasks = self._packed([words], modality.max_len)
        return {f"{modality.name}_caps": caps[0], f"{modality.name}_cmasks": cmasks[0]}

    def _stream(
        self, modality: Modality, feature: np.ndarray | None, item: Item, rng: ItemRandom | None
    ) -> dict[str, torch.Tensor]:
        padded = torch.zeros(modality.max_len, *modality.shape)
        n = 0
        if feature is not None:
            draw = needed(rng, self).numpy if self.sampling == "chunk_random" else None
            rows = np.asarray(
                feature[sample_positions(len(feature), modality.max_len, self.sampling, draw)],
                dtype=np.float32,
            )
            padded[: len(rows)], n = torch.from_numpy(rows), len(rows)
            check_finite(padded.flatten(1)[None], [f"{modality.name} of {item.id}"])
        return {
            f"{modality.name}_feats": padded,
            f"{modality.name}_masks": torch.arange(modality.max_len) < n,
        }


def lacking_by_split(config: DatasetConfig, source: str) -> dict[str, tuple[str, int, dict[str, list[str]]]]:
    """Split -> its list, how many items it has, and modality -> ids that lack it; of the splits whose list is
    named.

    Raises:
        ValueError: none is.
    """
    found = {}
    for split, key in MetaProcessor.SPLIT_KEYS.items():
        path = getattr(config, key)
        if path is not None:
            items = read_annotation(path, config.caption_keys)
            found[split] = path, len(items), lacking(items, dataclasses.replace(config, split=split))
    if not found:
        raise ValueError(f"{source}: no dataset.train_path, val_path or test_path to check.")
    return found
