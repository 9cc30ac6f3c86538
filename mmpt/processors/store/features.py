"""Features by id: a folder of files, or shards with their index."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmpt.processors.store.shard_cache import ShardCache
from mmpt.processors.store.video_index import VideoIndex
from mmpt.utils.shardedtensor import load_feature


class FeatureFolder:
    """`<path>/<id><suffix>.npy`, listed once; several suffixes are versions of the same moments, joined along
    the last axis.

    Args:
        what: key or option that names the folder, for errors.
    """

    def __init__(self, path: str | Path, suffixes: Sequence[str] = ("",), what: str = "features"):
        if not os.path.isdir(path):
            raise FileNotFoundError(f"{what}: {path} is no folder; expected one with <id>{suffixes[0]}.npy.")
        self.path, self.suffixes = Path(path), suffixes
        self.names = {
            entry.name.removesuffix(".npy") for entry in os.scandir(path) if entry.name.endswith(".npy")
        }

    def __contains__(self, source: str) -> bool:
        return all(source + suffix in self.names for suffix in self.suffixes)

    def __call__(self, source: str) -> np.ndarray:
        arrays = [
            load_feature(self.path / f"{source}{suffix}.npy", mmap_mode="r") for suffix in self.suffixes
        ]
        if len({array.shape for array in arrays}) > 1:
            shapes = ", ".join(
                f"{source}{suffix} {array.shape}" for suffix, array in zip(self.suffixes, arrays, strict=True)
            )
            raise ValueError(f"{self.path}: versions of one video differ in shape: {shapes}.")
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=-1)


def version_suffixes(versions: int) -> list[str]:
    """What names of files end with: `_aug0`, `_aug1`, ... where there are several versions."""
    return [f"_aug{k}" for k in range(versions)] if versions > 1 else [""]


class FeatureShards:
    """Shards `<path>/<split>_<k>` with their `<split>_meta.pkl`."""

    def __init__(self, path: str | Path, split: str):
        self.prefix = f"{path}/{split}_"
        self.index = VideoIndex.open(f"{self.prefix}meta.pkl")
        self.shards = ShardCache()

    def __contains__(self, source: str) -> bool:
        position = int(self.index.find([source])[0])
        return position >= 0 and len(self._rows(position)) > 0

    def __call__(self, source: str) -> np.ndarray:
        return self._rows(int(self.index.find([source])[0]))

    def _rows(self, position: int) -> np.ndarray:
        shard, row = self.index.place(position)
        return self.shards(f"{self.prefix}{shard}")[row]
