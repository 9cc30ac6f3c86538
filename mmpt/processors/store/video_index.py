"""Where each video lies: id -> (shard, row), for millions of videos, mapped from disk and shared between
processes.

The meta pickle `train_meta.pkl` ({shard number: [video id, ...]}) costs a second and hundreds of megabytes
per process at 1.2 million videos. It is turned once into `train_meta.pkl.index` beside it: shards, rows and
sorted fixed-width ids as consecutive .npy blocks that open in milliseconds. The index carries size and time
of the pickle it came from and a checksum of its blocks, and is rebuilt when they differ.
"""

from __future__ import annotations

import io
import logging
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmpt.utils.files import atomic_write
from mmpt.utils.shardedtensor import load_index

logger = logging.getLogger(__name__)

HEAD = struct.Struct("<qqq40x")  # size and time of the pickle, checksum of what follows; blocks stay aligned


class VideoIndex:
    """Sorted video ids with their places.

    Args:
        ids: (n,) sorted bytes, UTF-8.
        shards: (n,) int32 shard numbers.
        rows: (n,) int32 positions within the shard.
        meta_path: the meta pickle; a copy sent to another process opens it there instead of carrying the
            arrays.
    """

    def __init__(self, ids: np.ndarray, shards: np.ndarray, rows: np.ndarray, meta_path: Path):
        self.ids, self.shards, self.rows, self.meta_path = ids, shards, rows, meta_path

    @classmethod
    def open(cls, meta_path: str | Path) -> VideoIndex:
        """The index of a meta pickle; builds it on first use, or when the pickle has changed since.

        Raises:
            FileNotFoundError: no such pickle.
            ValueError: the pickle is not {int: [str, ...]}.
        """
        meta_path = Path(meta_path)
        if not meta_path.exists():
            raise FileNotFoundError(
                f"{meta_path}: no meta index of the shards. It is written with them; check dataset.vfeat_dir."
            )
        stat = meta_path.stat()
        made_from = (stat.st_size, stat.st_mtime_ns)
        index_path = meta_path.with_name(meta_path.name + ".index")
        blocks = _map_blocks(index_path, made_from)
        if blocks is None:
            logger.info("building %s", index_path)
            blocks = _sorted_blocks(load_index(meta_path), meta_path)
            try:
                body = io.BytesIO()
                for block in blocks:
                    np.save(body, block)
                with atomic_write(index_path) as file:
                    file.write(HEAD.pack(*made_from, zlib.crc32(body.getbuffer())))
                    file.write(body.getbuffer())
            except OSError as error:  # a read-only data folder: works, only slower to start
                logger.info("cannot write %s (%s); the index is kept in memory", index_path, error)
        shards, rows, ids = blocks
        return cls(ids, shards, rows, meta_path)

    def __reduce__(self):
        return VideoIndex.open, (self.meta_path,)

    def __len__(self) -> int:
        return len(self.ids)

    def find(self, ids: Sequence[str]) -> np.ndarray:
        """Positions of ids in this index, (n,) int64; -1 where an id is unknown."""
        keys = np.array([name.encode() for name in ids], dtype=bytes)
        if not len(self.ids) or not len(keys):
            return np.full(len(keys), -1)
        positions = np.minimum(np.searchsorted(self.ids, keys), len(self.ids) - 1)
        return np.where(self.ids[positions] == keys, positions, -1)

    def name(self, position: int) -> str:
        """The id at a position."""
        return self.ids[position].decode()

    def place(self, position: int) -> tuple[int, int]:
        """(shard, row) at a position."""
        return int(self.shards[position]), int(self.rows[position])


def _sorted_blocks(
    meta: Mapping[int, Sequence[str]], path: Path
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ids = np.array([name.encode() for names in meta.values() for name in names], dtype=bytes)
    lengths = [len(names) for names in meta.values()]
    shards = np.repeat(np.array(list(meta), dtype=np.int32), lengths)
    rows = np.concatenate(
        [np.arange(length, dtype=np.int32) for length in lengths] or [np.zeros(0, np.int32)]
    )
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    first = np.ones(len(ids), dtype=bool)
    first[1:] = ids[1:] != ids[:-1]
    if not first.all():
        repeated = ids[~first]
        logger.warning(
            "%s: %d ids occur more than once, the first place counts: %s",
            path,
            len(repeated),
            repeated[:5].tolist(),
        )
    return (
        shards[order][first],
        rows[order][first],
        ids[first],
    )  # ids last: any width, and the integers before stay aligned


def _map_blocks(path: Path, made_from: tuple[int, int]) -> tuple[np.ndarray, ...] | None:
    """The three arrays of an index file, or None when it is absent, stale or damaged (it is then rebuilt)."""
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD.size)
            if len(head) < HEAD.size or HEAD.unpack(head)[:2] != made_from:
                return None
            checksum = 0
            while chunk := file.read(1 << 20):
                checksum = zlib.crc32(chunk, checksum)
            if checksum != HEAD.unpack(head)[2]:  # else ids would lead to other videos
                logger.warning("%s is damaged; it is made again from the pickle", path)
                return None
            file.seek(HEAD.size)
            return tuple(_map_next(file, path) for _ in range(3))
    except FileNotFoundError:
        return None


def _map_next(file, path: Path) -> np.ndarray:
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    offset = file.tell()
    file.seek(shape[0] * dtype.itemsize, 1)
    if not shape[0]:
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape).view(np.ndarray)
