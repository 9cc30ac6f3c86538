"""Shards held open by a process."""

from __future__ import annotations

import resource
from collections import OrderedDict
from pathlib import Path

import numpy as np

from mmpt.processors.store.remote import is_remote, local_shard, remote_folder
from mmpt.utils.shardedtensor import ShardedTensor, Version

OPEN_FILES = (
    8192  # what a process that reads all of HowTo100M's 879 shards beside everything else can do with
)


def shards_at_once() -> int:
    """Shards that a cache may hold open, a quarter of the process's open files: there is a cache for features
    and one for captions.

    The limit of open files is first raised as far as the system allows.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return (OPEN_FILES if soft == resource.RLIM_INFINITY else soft) // 4


class ShardCache:
    """Shards held open by a process, the least recently used closed first.

    Read-only maps survive a fork and are shared by it; a pickled cache arrives empty.

    Args:
        limit: shards held at once, each of which takes one file descriptor; None: `shards_at_once`. Opening
            takes a third of a millisecond, more than reading an item.
        cache_dir: where copies of remote shards go; None: $MMPT_CACHE, or ~/.cache/mmpt.
        scattered: items are read in no order, each announced by `ShardedTensor.read_ahead`.
    """

    def __init__(
        self, limit: int | None = None, cache_dir: str | Path | None = None, scattered: bool = False
    ):
        self.limit = shards_at_once() if limit is None else limit
        self.cache_dir, self.scattered = cache_dir, scattered
        self._open: OrderedDict[str, ShardedTensor] = OrderedDict()
        self._first: dict[str, Version | None] = {}  # of every shard ever opened

    def __call__(self, path: str) -> ShardedTensor:
        """The shard at `path` (or URL), mapped read-only."""
        shard = self._open.get(path)
        if shard is None:
            shard = self._open[path] = ShardedTensor.load(local_shard(path, self.cache_dir), mmap_mode="r")
            shard.version = self._first.setdefault(path, shard.version)
            if self.scattered:
                shard.expect_scattered_reads()
            if len(self._open) > self.limit:
                self._open.popitem(last=False)
        else:
            self._open.move_to_end(path)
        return shard

    def lengths(self, path: str) -> np.ndarray:
        """Rows per item of a shard; of a remote one without fetching the rows."""
        if is_remote(path):
            folder, name = path.rsplit("/", 1)
            return remote_folder(folder, self.cache_dir).lengths(name)
        return ShardedTensor.load(path, mmap_mode="r").lengths()

    def __reduce__(self):
        return ShardCache, (self.limit, self.cache_dir, self.scattered)
