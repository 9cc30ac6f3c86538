"""Features of single videos -> shards.

    python scripts/video_feature_extractor/shard_feature.py data/feat/feat_how2_s3d data/how2/how2_s3d_train.lst data/feat/shards \\
        --split train --backbone s3d --frames-per-second 30 --normalised

reads `<features>/<id>.npy` (seconds, D) for each id of the list and writes `train_<k>_data.npy`, `train_<k>_starts.npy`, the manifest
`shards.json` and the index `train_meta.pkl`. What cannot be read is left out and listed with its reason in `train_unreadable.txt`.
Stopped in the middle, the same command goes on with the first unfinished shard.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mmpt.processors.how2 import read_ids
from mmpt.utils import ShardError, ShardWriter, atomic_write, load_plain_pickle, save_plain_pickle
from mmpt.utils.shardedtensor import read_manifest


def readable(features: Path, ids: Sequence[str], dtype: np.dtype, unreadable: dict[str, str]) -> Iterator[tuple[str, np.ndarray]]:
    """Ids with their features, in order; what is damaged goes to `unreadable` with the reason."""
    for video in ids:
        try:
            feature = np.load(features / f"{video}.npy", allow_pickle=False)
            if feature.ndim != 2 or not len(feature):
                raise ValueError(f"shape {feature.shape}, expected (seconds, D) with at least one second")
            feature = feature.astype(dtype)
            if not np.isfinite(feature).all():
                raise ValueError(f"NaN, infinite, or too large for {dtype}")
        except (OSError, ValueError, EOFError) as error:
            unreadable[video] = " ".join(str(error).split())
            continue
        yield video, feature


def write_shard(path: Path, videos: Iterator[tuple[str, np.ndarray]], passport: dict, unreadable: dict[str, str]) -> list[str]:
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


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Features of single videos -> shards.")
    parser.add_argument("features", type=Path, help="folder of <id>.npy")
    parser.add_argument("list", type=Path, help="ids, one per line")
    parser.add_argument("target", type=Path, help="folder for the shards")
    parser.add_argument("--split", choices=("train", "val"), required=True)
    parser.add_argument("--shard-size", type=int, default=4096, help="ids per shard")
    parser.add_argument("--dtype", default="float16", help="of the stored features")
    parser.add_argument("--backbone", default="s3d", help="passport: the network the features come from")
    parser.add_argument("--frames-per-second", type=float, default=30, help="passport: what the network saw")
    parser.add_argument("--seconds-per-feature", type=float, default=1.0, help="passport: time covered by one row")
    parser.add_argument("--normalised", action=argparse.BooleanOptionalAction, default=True, help="passport: rows have unit length")
    args = parser.parse_args(argv)
    ids = read_ids(args.list)
    passport = {name: getattr(args, name) for name in ("backbone", "frames_per_second", "seconds_per_feature", "normalised")}
    meta_path = args.target / f"{args.split}_meta.pkl"
    meta: dict[int, list[str]] = load_plain_pickle(meta_path) if meta_path.exists() else {}
    unreadable: dict[str, str] = {}
    for shard, start in enumerate(tqdm(range(0, len(ids), args.shard_size), unit="shard")):
        chunk, path = ids[start : start + args.shard_size], args.target / f"{args.split}_{shard}"
        if shard in meta and path.name in read_manifest(args.target):
            if not set(meta[shard]) <= set(chunk):
                sys.exit(
                    f"{path}: holds other videos than lines {start + 1} to {start + len(chunk)} of {args.list}. Empty the target folder."
                )
            unreadable.update(dict.fromkeys(set(chunk) - set(meta[shard]), "left out by an earlier run"))
            continue
        written = write_shard(path, readable(args.features, chunk, np.dtype(args.dtype), unreadable), passport, unreadable)
        if written:
            meta[shard] = written
            save_plain_pickle(meta, meta_path)
    with atomic_write(args.target / f"{args.split}_unreadable.txt", "w") as file:
        file.writelines(f"{video}\t{reason}\n" for video, reason in unreadable.items())
    print(
        f"{args.target}: {sum(map(len, meta.values()))} videos in {len(meta)} shards; "
        f"{len(unreadable)} unreadable, see {args.split}_unreadable.txt"
    )


if __name__ == "__main__":
    main()
