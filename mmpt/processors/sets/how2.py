"""HowTo100M: lists of video ids, shards of features and tokens, and groups of videos for retrieval-augmented
batches.

Files of a split `train` or `val`:

    how2_s3d_train.lst                     one video id per line, e.g. `nwJ8sYLTmVc`
    <vfeat_dir>/train_meta.pkl             {0: ["nwJ8sYLTmVc", ...], 1: [...]}: shard number -> ids in order
    <vfeat_dir>/train_0_{data,starts}.npy  features of shard 0, (sum of seconds, 512) float16
    <tfeat_dir>train_0.startends_*.npy  seconds of its captions, (captions, 2) float32; tfeat_dir is a path
        prefix that ends with a dot
    <tfeat_dir>train_0.caps_ids_*.npy      their token ids, (captions, 32) int32, padded with -1

vfeat_dir and tfeat_dir may be URLs that fsspec knows (`s3://bucket/shards`): see
`mmpt.processors.store.remote`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mmpt.config import required
from mmpt.config.fields import Section, option
from mmpt.config.schema import DatasetConfig
from mmpt.processors.base import MetaProcessor, MissingData, PublishedList, TextProcessor, VideoProcessor
from mmpt.processors.captions.readers import captions_of
from mmpt.processors.store.rates import per_second
from mmpt.processors.store.remote import local_file
from mmpt.processors.store.shard_cache import ShardCache
from mmpt.processors.store.video_index import VideoIndex
from mmpt.registry import META_PROCESSORS, TEXT_PROCESSORS, VIDEO_PROCESSORS
from mmpt.utils.safe_pickle import load_plain_pickle
from mmpt.utils.seed import ItemRandom
from mmpt.utils.shardedtensor import ShardError
from mmpt.utils.text import check_kind, read_ids

logger = logging.getLogger(__name__)

VALID = {"valid": [PublishedList(23834, 23834, "how2_s3d_val.lst")]}
Place = tuple[str, int, int, int]  # video id, index in the list (-1: none), shard, row in the shard


@dataclass(frozen=True, kw_only=True)
class ShardKeys(Section):
    """Where shards lie and how they are read."""

    tfeat_dir: str | None = option(None, "path prefix of token shards, ends with a dot")
    on_damaged: str = option(
        "error",
        "shards that are missing, truncated or contradictory: error, or skip their videos (named)",
        one_of=("error", "skip"),
    )
    read_ahead: bool = option(
        True,
        "have the system fetch each video's rows of a shard in one go, and nothing around them; false: "
        "its own way",
    )
    cache_dir: str | None = option(
        None, "where copies of remote shards (s3://... in vfeat_dir, tfeat_dir) are kept; null: ~/.cache/mmpt"
    )


@META_PROCESSORS.register()
class How2MetaProcessor(MetaProcessor):
    """Video ids of a list; item -> (id, id)."""

    LIST = "list of video ids"
    PUBLISHED: ClassVar = VALID

    def __init__(self, config: DatasetConfig):
        super().__init__(config)
        self.data = np.array(
            [name.encode() for name in read_ids(self.split_path())]
        )  # bytes: compact, and shared by forked workers

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        video_id = self.data[index].decode()
        return video_id, video_id


@META_PROCESSORS.register()
class ShardedHow2MetaProcessor(MetaProcessor):
    """Video ids with their place in the shards; item -> ((id, index, shard, row), same).

    Ids without index entry, features or captions are left out: counted, named, or refused
    (dataset.on_missing). Every shard of the list is opened once, and a damaged one is refused, or its videos
    left out (dataset.on_damaged).
    """

    LIST = "list of video ids"
    PUBLISHED: ClassVar = VALID

    Config = ShardKeys

    def __init__(self, config: DatasetConfig):
        super().__init__(config)
        split = shard_split(config)
        self.index = VideoIndex.open(
            local_file(f"{required(config, 'vfeat_dir')}/{split}_meta.pkl", config.cache_dir)
        )
        ids = read_ids(self.split_path())
        positions = self.index.find(ids)
        self.report_missing(
            "have no entry in the shard index", [ids[i] for i in np.flatnonzero(positions < 0)]
        )
        positions = positions[positions >= 0]
        kinds = {"have no features": f"{config.vfeat_dir}/{split}_{{}}"}
        if config.tfeat_dir is not None:
            kinds["have no captions"] = f"{config.tfeat_dir}{split}_{{}}.startends"
            kinds["have no tokens"] = f"{config.tfeat_dir}{split}_{{}}.caps_ids"
        shards = ShardCache(cache_dir=config.cache_dir)
        for reason, pattern in kinds.items():
            positions = self._with_rows(positions, shards, pattern, reason)
        if not len(positions):
            raise MissingData(
                f"{self.split_path()}: none of its {len(ids)} ids has features and captions in "
                f"{config.vfeat_dir}."
            )
        self.data = positions  # (n,) positions in the index

    def _with_rows(self, positions: np.ndarray, shards: ShardCache, pattern: str, reason: str) -> np.ndarray:
        """The positions whose item in the shards `pattern` has at least one row."""
        filled, damaged = np.zeros((2, len(positions)), dtype=bool)
        of_shard = self.index.shards[positions]
        order = np.argsort(of_shard, kind="stable")
        numbers, first = np.unique(of_shard[order], return_index=True)
        for shard, here in zip(
            numbers.tolist(), np.split(order, first[1:]), strict=False
        ):  # no shard at all: one empty part
            try:
                lengths = shards.lengths(pattern.format(shard))
            except ShardError as error:
                if self.config.on_damaged == "error":
                    raise
                logger.error("%s Its %d videos are left out (dataset.on_damaged: skip).", error, len(here))
                damaged[here] = True
                continue
            rows = self.index.rows[positions[here]]
            known = rows < len(lengths)
            filled[here[known]] = lengths[rows[known]] > 0
        if damaged.any():
            self.missing.setdefault("lie in damaged shards", []).extend(
                map(self.index.name, positions[damaged])
            )
        self.report_missing(reason, [self.index.name(position) for position in positions[~filled & ~damaged]])
        return positions[filled]

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        place = self.place(self.data[index], index)
        return place, place

    def videos(self, index: int) -> list[str]:
        return [self.index.name(self.data[index])]

    def segments(self) -> Iterator[tuple[str, list[tuple[float, float]]]]:
        """None: the features lie in shards."""
        return iter(())

    def place(self, position: int, index: int = -1) -> Place:
        """What the sharded video and text processors need to find a video."""
        return (self.index.name(position), index, *self.index.place(position))


@META_PROCESSORS.register()
class ShardedHow2VideoRetriMetaProcessor(ShardedHow2MetaProcessor):
    """Groups of videos; item -> (list of (id, -1, shard, row), same list).

    At first the groups are consecutive runs of the list. An epoch may replace them: by nearest neighbours
    (`set_candidates`) or at random. The last, incomplete group is dropped, unless it is the only one.
    """

    PUBLISHED: ClassVar = {}
    GROUPS = True

    def __init__(self, config: DatasetConfig):
        super().__init__(config)
        self.videos_per_group: int = required(config, "num_video_per_batch")
        if len(self.data) < self.videos_per_group:
            logger.warning(
                "%s: %d usable videos make one batch smaller than num_video_per_batch=%d",
                self.split_path(),
                len(self.data),
                self.videos_per_group,
            )
        self.groups = self._grouped(self.data)

    def _grouped(self, positions: np.ndarray) -> list[np.ndarray]:
        size = min(self.videos_per_group, len(positions))
        n_groups = len(positions) // size
        return list(positions[: n_groups * size].reshape(n_groups, size))

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: int) -> tuple[list[Place], list[Place]]:
        places = [self.place(position) for position in self.groups[index].tolist()]
        return places, places

    def videos(self, index: int) -> list[str]:
        return [self.index.name(position) for position in self.groups[index].tolist()]

    def video_ids(self) -> list[str]:
        """All videos of the split, in list order."""
        return [self.index.name(position) for position in self.data.tolist()]

    def set_candidates(self, groups: Sequence[Sequence[str]]) -> None:
        """Take these groups of video ids from now on.

        Raises:
            ValueError: no group, or an id that the index does not know.
        """
        if not groups:
            raise ValueError("set_candidates got no groups; a training epoch needs at least one.")
        lengths = [len(group) for group in groups]
        names = [name for group in groups for name in group]
        positions = self.index.find(names)
        if (positions < 0).any():
            raise ValueError(
                f"candidate {names[int(np.argmin(positions))]!r} has no entry in the shard index."
            )
        logger.info("batches of videos: %d -> %d", len(self.groups), len(groups))
        self.groups = np.split(positions, np.cumsum(lengths)[:-1])

    def random_candidates(self, rng: np.random.Generator | Any) -> None:
        """Regroup at random.

        Args:
            rng: a numpy generator, or a `random.Random` to replay the historic stream. Every process must
                pass the same.
        """
        if isinstance(rng, np.random.Generator):
            order = rng.permutation(len(self.data))
        else:
            order = list(range(len(self.data)))
            rng.shuffle(order)
        self.groups = self._grouped(self.data[order])


def shard_split(config: DatasetConfig) -> str:
    """The name of a split in shard files; validation and test share theirs."""
    return "train" if (config.split or "train") == "train" else "val"


class ShardReader:
    """Reads items of shards as the settings want: remote ones through their copies, those damaged since the
    start as missing or as errors.

    Args:
        config: cache_dir, on_damaged and read_ahead are read.
    """

    def __init__(self, config: DatasetConfig):
        self.shards = ShardCache(cache_dir=config.cache_dir, scattered=config.read_ahead)
        self.skips_damaged = config.on_damaged == "skip"
        self.reads_ahead = config.read_ahead

    def __call__(self, items: Sequence[tuple[str, int]]) -> list[np.ndarray]:
        """Rows of the items at (shard path or URL, row in it), all announced before the first is touched: the
        disk fetches them together.

        Raises:
            ShardError: a shard is damaged.
            MissingData: the same, with dataset.on_damaged: skip.
        """
        try:
            shards = [self.shards(path) for path, _ in items]
        except ShardError as error:
            if self.skips_damaged:
                raise MissingData(str(error)) from error
            raise
        if self.reads_ahead:
            for shard, (_, row) in zip(shards, items, strict=True):
                shard.read_ahead(row)
        return [shard[row] for shard, (_, row) in zip(shards, items, strict=True)]


@VIDEO_PROCESSORS.register()
class ShardedVideoRetriVideoProcessor(VideoProcessor):
    """Features of a group of videos: a list of (seconds, D), read-only views of the mapped shards."""

    FILES: ClassVar = {"vfeat_dir": "folder, or URL, of feature shards with <split>_meta.pkl"}

    Config = ShardKeys

    def __init__(self, config: DatasetConfig):
        super().__init__(config)
        self.prefix = f"{config.vfeat_dir}/{shard_split(config)}_"
        self.read = ShardReader(config)

    def __call__(self, video_id: Any) -> Any:
        found = self.read([(f"{self.prefix}{shard}", row) for _, _, shard, row in video_id])
        return [per_second(rows, self.rate) for rows in found]


@VIDEO_PROCESSORS.register()
class ShardedVideoProcessor(ShardedVideoRetriVideoProcessor):
    """Features of one video, (seconds, D)."""

    def __call__(self, video_id: Any) -> Any:
        return super().__call__([video_id])[0]


@TEXT_PROCESSORS.register()
class ShardedVideoRetriTextProcessor(TextProcessor):
    """Timed captions of a group of videos: a list of {"start" (n,), "end" (n,) seconds, "cap" (n, 32) ids
    padded with -1}, views of the mapped shards.
    """

    FILES: ClassVar = {"tfeat_dir": "path prefix of token shards"}

    Config = ShardKeys

    def __init__(self, config: DatasetConfig, tokenizer: Any = None):
        super().__init__(config, tokenizer)
        self.prefix = f"{required(config, 'tfeat_dir')}{shard_split(config)}_"
        self.read = ShardReader(config)

    def __call__(self, text_id: Any, rng: ItemRandom | None = None) -> Any:
        items = [
            (f"{self.prefix}{shard}.{kind}", row)
            for kind in ("startends", "caps_ids")
            for _, _, shard, row in text_id
        ]
        rows = self.read(items)
        times, caps = rows[: len(text_id)], rows[len(text_id) :]
        return [
            {"start": time[:, 0], "end": time[:, 1], "cap": cap}
            for time, cap in zip(times, caps, strict=True)
        ]


@TEXT_PROCESSORS.register()
class ShardedTextProcessor(ShardedVideoRetriTextProcessor):
    """Timed captions of one video."""

    def __call__(self, text_id: Any, rng: ItemRandom | None = None) -> Any:
        return super().__call__([text_id], rng)[0]


@TEXT_PROCESSORS.register()
class PKLJSONStrTextProcessor(TextProcessor):
    """Timed captions from a pickle {video id: JSON string} (dataset.caption_pkl_path), tokenised when asked
    for.

    One value: '{"start": [0.5], "end": [3.2], "text": ["cut the onion"]}'. Texts are cut at 96 characters;
    what is no text has no words.
    """

    FILES: ClassVar = {"caption_pkl_path": "pickle {video: JSON of start, end, text}"}

    @dataclass(frozen=True, kw_only=True)
    class Config(Section):
        """Files of pre-tokenisation."""

        caption_pkl_path: str | None = option(None, "pickle of timed captions for pre-tokenisation")
        target_dir: str | None = option(None, "output folder of pre-tokenisation")

    MAX_CHARACTERS = 96

    def __init__(self, config: DatasetConfig, tokenizer: Any = None):
        super().__init__(config, tokenizer)
        self.path = required(config, "caption_pkl_path")
        self.captions: dict[str, str] = check_kind(load_plain_pickle(self.path), dict, self.path)

    def __call__(self, text_id: str, rng: ItemRandom | None = None) -> dict[str, Any]:
        if text_id not in self.captions:
            raise MissingData(f"{self.path}: no captions of video {text_id!r}.")
        clips = captions_of(self.captions[text_id], f"{self.path}: video {text_id}")
        cap = [
            self.tokenize(text[: self.MAX_CHARACTERS]) if isinstance(text, str) else []
            for text in clips["text"]
        ]
        return {"start": clips["start"], "end": clips["end"], "cap": cap}
