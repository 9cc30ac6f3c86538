"""Features of single videos -> shards.

Reads `<features>/<id>.npy` (seconds, D) for each id of a list and writes `train_<k>_data.npy`,
`train_<k>_starts.npy`, the manifest `shards.json` and the index `train_meta.pkl`. What the features are is
read from `<features>/passport.json`, which the extractor writes; for features from elsewhere say it with
`--backbone`, `--frames-per-second` and so on. What cannot be read is left out and listed with its reason in
`train_unreadable.txt`. Stopped in the middle, the same command goes on with the first unfinished shard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mmpt.processors.store.features import FeatureFolder
from mmpt.processors.store.packing import read_meta, readable, write_shard
from mmpt.processors.store.passport import read_passport
from mmpt.utils import ShardWriter, atomic_write, save_plain_pickle
from mmpt.utils.shardedtensor import in_shards, read_manifest

UNKNOWN = {
    "backbone": "s3d",
    "frames_per_second": 30.0,
    "seconds_per_feature": 1.0,
    "normalised": True,
}  # of features without passport


@dataclass(frozen=True)
class Built:
    """What a folder of shards holds now: how many videos and shards, and why some videos are not there."""

    n_videos: int
    n_shards: int
    unreadable: dict[str, str]


def build(
    features: Path,
    ids: Sequence[str],
    target: Path,
    split: str,
    shard_size: int = 4096,
    dtype: str = "float16",
    passport: Mapping[str, Any] | None = None,
) -> Built:
    """Write the shards that are not there yet.

    Args:
        features: folder of <id>.npy, (seconds, D) each.
        ids: which, and in which order.
        target: folder for the shards.
        split: train or val, the name of the shards.
        shard_size: ids per shard.
        dtype: of the stored features.
        passport: changes of what `passport.json`, or `UNKNOWN`, says of the features.

    Raises:
        ValueError: a shard of that number is there with other videos.
    """
    passport = (read_passport(features) or UNKNOWN) | dict(passport or {})
    meta = read_meta(target, split)
    unreadable: dict[str, str] = {}
    for shard, start in enumerate(tqdm(range(0, len(ids), shard_size), unit="shard", disable=None)):
        chunk, path = ids[start : start + shard_size], target / f"{split}_{shard}"
        if shard in meta and path.name in read_manifest(target):
            if not set(meta[shard]) <= set(chunk):
                raise ValueError(
                    f"{path}: holds other videos than ids {start + 1} to {start + len(chunk)} of the list. "
                    "Empty the target folder."
                )
            unreadable.update(dict.fromkeys(set(chunk) - set(meta[shard]), "left out by an earlier run"))
            continue
        written = write_shard(
            path, readable(features, chunk, np.dtype(dtype), unreadable), passport, unreadable
        )
        if written:
            meta[shard] = written
            save_plain_pickle(meta, target / f"{split}_meta.pkl")
    with atomic_write(target / f"{split}_unreadable.txt", "w") as file:
        file.writelines(f"{video}\t{reason}\n" for video, reason in unreadable.items())
    return Built(sum(map(len, meta.values())), len(meta), unreadable)


def build_modality(
    sources: Sequence[str],
    store: FeatureFolder,
    target: Path,
    split: str,
    rate: float = 1.0,
    shard_size: int = 4096,
) -> int:
    """Shards of the features in `store`, in the order of `sources`; returns how many sources have some.

    Raises:
        FileNotFoundError: none has.
    """
    there = [source for source in sources if source in store]
    if not there:
        raise FileNotFoundError(
            f"{store.path}: holds <id>{store.suffixes[0]}.npy of none of the {len(sources)} ids, e.g. "
            f"{sources[0]}{store.suffixes[0]}.npy."
        )
    target.mkdir(parents=True, exist_ok=True)
    meta = in_shards(there, shard_size)
    for k, members in meta.items():
        with ShardWriter(target / f"{split}_{k}", passport={"seconds_per_feature": 1 / rate}) as writer:
            for source in members:
                writer.append(np.asarray(store(source)))
    save_plain_pickle(meta, target / f"{split}_meta.pkl")
    return len(there)
