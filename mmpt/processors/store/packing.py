"""Features of single videos, `<id>.npy`, packed into shards with their manifest and the index that the
loaders read."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.utils import ShardError, ShardWriter, load_index, save_plain_pickle
from mmpt.utils.shardedtensor import load_feature


def read_meta(target: str | Path, split: str) -> dict[int, list[str]]:
    """Shard number -> ids, of a split that is packed so far."""
    path = _meta_path(target, split)
    return load_index(path) if path.exists() else {}


def pack(
    features: str | Path,
    ids: Sequence[str],
    target: str | Path,
    split: str,
    shard_size: int,
    dtype: str,
    passport: Mapping[str, Any],
) -> dict[str, str]:
    """Packs videos into shards behind those that are there, and removes their `<id>.npy`.

    Stopped at any moment, the same call goes on: a shard is entered in the index once it is whole, and only
    then are its files removed.

    Args:
        features: folder of `<id>.npy`.
        ids: videos to pack, in order.
        target: folder for `<split>_<k>_data.npy`, `<split>_<k>_starts.npy`, `shards.json` and
            `<split>_meta.pkl`.
        split: train or val.
        shard_size: videos per shard.
        dtype: of the stored rows.
        passport: what the rows are.

    Returns:
        Ids that could not be packed, with the reason.
    """
    meta = read_meta(target, split)
    unreadable: dict[str, str] = {}
    packed = {video for shard in meta.values() for video in shard}
    for video in packed:  # left over where a run was stopped between the index and the removal
        (Path(features) / f"{video}.npy").unlink(missing_ok=True)
    rest = [video for video in ids if video not in packed]
    for first in range(0, len(rest), shard_size):
        block, shard = rest[first : first + shard_size], max(meta, default=-1) + 1
        written = write_shard(
            Path(target) / f"{split}_{shard}",
            readable(features, block, np.dtype(dtype), unreadable),
            passport,
            unreadable,
        )
        if written:
            meta[shard] = written
            save_plain_pickle(meta, _meta_path(target, split))
        for video in written:
            (Path(features) / f"{video}.npy").unlink()
    return unreadable


def readable(
    features: str | Path, ids: Sequence[str], dtype: np.dtype, unreadable: dict[str, str]
) -> Iterator[tuple[str, np.ndarray]]:
    """Ids with their features, in order; what is damaged goes to `unreadable` with the reason."""
    for video in ids:
        try:
            feature = load_feature(Path(features) / f"{video}.npy")
            if feature.ndim != 2 or not len(feature):
                raise ValueError(f"shape {feature.shape}, expected (seconds, D) with at least one second")
            feature = feature.astype(dtype)
            if not np.isfinite(feature).all():
                raise ValueError(f"NaN, infinite, or too large for {dtype}")
        except (OSError, ValueError) as error:
            unreadable[video] = " ".join(str(error).split())
            continue
        yield video, feature


def write_shard(
    path: Path,
    videos: Iterator[tuple[str, np.ndarray]],
    passport: Mapping[str, Any],
    unreadable: dict[str, str],
) -> list[str]:
    """One shard; the ids in it (none: no shard is written)."""
    first = next(videos, None)
    if first is None:
        return []
    ids = []
    with ShardWriter(path, passport=passport) as writer:
        for video, feature in itertools.chain([first], videos):
            try:
                writer.append(feature)
            except ShardError as error:
                unreadable[video] = str(error)
                continue
            ids.append(video)
    return ids


def _meta_path(target: str | Path, split: str) -> Path:
    return Path(target) / f"{split}_meta.pkl"
