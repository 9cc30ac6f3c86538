"""Features of single videos -> shards.

Reads `<features>/<id>.npy` (seconds, D) for each id of a list and writes `train_<k>_data.npy`,
`train_<k>_starts.npy`, the manifest `shards.json` and the index `train_meta.pkl`. What the features are is
read from `<features>/passport.json`, which the extractor writes; for features from elsewhere say it with
`--backbone`, `--frames-per-second` and so on. What cannot be read is left out and listed with its reason in
`train_unreadable.txt`. Stopped in the middle, the same command goes on with the first unfinished shard.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mmpt.processors.store.packing import read_meta, readable, write_shard
from mmpt.processors.store.passport import read_passport
from mmpt.utils import atomic_write, save_plain_pickle
from mmpt.utils.shardedtensor import read_manifest
from mmpt.utils.text import read_ids

UNKNOWN = {
    "backbone": "s3d",
    "frames_per_second": 30.0,
    "seconds_per_feature": 1.0,
    "normalised": True,
}  # of features without passport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to read, where to write, and what the features are."""
    parser.add_argument("features", type=Path, help="folder of <id>.npy")
    parser.add_argument("list", type=Path, help="ids, one per line")
    parser.add_argument("target", type=Path, help="folder for the shards")
    parser.add_argument("--split", choices=("train", "val"), required=True)
    parser.add_argument("--shard-size", type=int, default=4096, help="ids per shard")
    parser.add_argument("--dtype", default="float16", help="of the stored features")
    passport = parser.add_argument_group("passport, where features come without passport.json")
    passport.add_argument("--backbone", help="the network the features come from (s3d)")
    passport.add_argument("--frames-per-second", type=float, help="what the network saw (30)")
    passport.add_argument("--seconds-per-feature", type=float, help="time covered by one row (1)")
    passport.add_argument(
        "--normalised", action=argparse.BooleanOptionalAction, help="rows have unit length (yes)"
    )


def build(args: argparse.Namespace) -> int:
    """Write the shards that are not there yet; 0, or an exit with a message."""
    ids = read_ids(args.list)
    told = {name: getattr(args, name) for name in UNKNOWN if getattr(args, name) is not None}
    passport = (read_passport(args.features) or UNKNOWN) | told
    meta = read_meta(args.target, args.split)
    unreadable: dict[str, str] = {}
    for shard, start in enumerate(tqdm(range(0, len(ids), args.shard_size), unit="shard", disable=None)):
        chunk, path = ids[start : start + args.shard_size], args.target / f"{args.split}_{shard}"
        if shard in meta and path.name in read_manifest(args.target):
            if not set(meta[shard]) <= set(chunk):
                sys.exit(
                    f"{path}: holds other videos than lines {start + 1} to {start + len(chunk)} of "
                    f"{args.list}. Empty the target folder."
                )
            unreadable.update(dict.fromkeys(set(chunk) - set(meta[shard]), "left out by an earlier run"))
            continue
        written = write_shard(
            path, readable(args.features, chunk, np.dtype(args.dtype), unreadable), passport, unreadable
        )
        if written:
            meta[shard] = written
            save_plain_pickle(meta, args.target / f"{args.split}_meta.pkl")
    with atomic_write(args.target / f"{args.split}_unreadable.txt", "w") as file:
        file.writelines(f"{video}\t{reason}\n" for video, reason in unreadable.items())
    print(
        f"{args.target}: {sum(map(len, meta.values()))} videos in {len(meta)} shards; "
        f"{len(unreadable)} unreadable, see {args.split}_unreadable.txt"
    )
    return 0
