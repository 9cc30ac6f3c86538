"""Shards held open by a process."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np

from mmpt.utils.remote import is_remote, local_shard, remote_folder
from mmpt.utils.shardedtensor import ShardedTensor


class ShardCache:
    """Shards held open by a process, the least recently used closed first.

    Read-only maps survive a fork and are shared by it; a pickled cache arrives empty.

    Args:
        limit: shards held at once (each takes one file descriptor).
        cache_dir: where copies of remote shards go; None: $MMPT_CACHE, or ~/.cache/mmpt.
        scattered: items are read in no order, each announced by `ShardedTensor.read_ahead`.
    """

    def __init__(self, limit: int = 256, cache_dir: str | Path | None = None, scattered: bool = False):
        self.limit, self.cache_dir, self.scattered = limit, cache_dir, scattered
        self._open: OrderedDict[str, ShardedTensor] = OrderedDict()

    def __call__(self, path: str) -> ShardedTensor:
        """The shard at `path` (or URL), mapped read-only."""
        shard = self._open.get(path)
        if shard is None:
            shard = self._open[path] = ShardedTensor.load(local_shard(path, self.cache_dir), mmap_mode="r")
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
