"""Looking after feature and token shards.

    python -m mmpt_cli.shards verify data/feat/feat_how2_s3d_shard_small

checks every shard of a folder: sizes and offsets, counts and checksums of the manifest, numbers that are not finite, and the meta pickles'
counts. Names each bad file and exits with status 1 if there is one.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mmpt.utils.safe_pickle import load_plain_pickle
from mmpt.utils.shardedtensor import SUFFIXES, ShardedTensor, ShardError, file_sha256, read_manifest

BLOCK_ROWS = 1 << 16


def shard_names(folder: Path) -> list[str]:
    """Shards of a folder, by their files or by the manifest."""
    found = {path.name.removesuffix(suffix) for suffix in SUFFIXES for path in folder.glob(f"*{suffix}")}
    return sorted(found | set(read_manifest(folder)))


def problems(folder: Path, name: str) -> Iterator[str]:
    """What is wrong with one shard, one sentence per problem."""
    try:
        shard = ShardedTensor.load(folder / name, mmap_mode="r")
    except ShardError as error:
        yield str(error)
        return
    for file, expected in read_manifest(folder).get(name, {}).get("sha256", {}).items():
        if file_sha256(folder / file) != expected:
            yield f"{folder / file}: its SHA-256 is not that of the manifest; the content changed. Copy or build the shard again."
    if shard.data.dtype.kind == "f":
        for start in range(0, len(shard.data), BLOCK_ROWS):
            finite = np.isfinite(shard.data[start : start + BLOCK_ROWS]).all(axis=tuple(range(1, shard.data.ndim)))
            if not finite.all():
                row = start + int(np.argmin(finite))
                item = int(np.searchsorted(shard.starts, row, side="right")) - 1
                yield f"{folder / name}_data.npy: NaN or infinite values in row {row} (item {item}). Extract that video again."
                return


def meta_problems(path: Path) -> Iterator[str]:
    """Shards whose number of items is not the number of ids that the meta pickle lists for them."""
    split = path.name.removesuffix("_meta.pkl")
    for shard, ids in load_plain_pickle(path).items():
        files = [
            f
            for f in path.parent.glob(f"*_{shard}*_starts.npy")
            if re.search(rf"(^|\.){re.escape(split)}_{shard}(\.[a-z_]+)?_starts\.npy$", f.name)
        ]
        if not files:
            yield f"{path}: lists shard {shard}, but {path.parent} has no {split}_{shard}_starts.npy."
        for file in files:
            items = len(np.load(file)) - 1
            if items != len(ids):
                yield f"{file}: {items} items, but {path.name} lists {len(ids)} ids for shard {shard}."


def verify(folder: Path) -> int:
    """Check a folder and print a report; the number of problems."""
    names = shard_names(folder)
    if not names:
        print(f"{folder}: no shards (*_data.npy with *_starts.npy)", file=sys.stderr)
        return 1
    found = [problem for name in tqdm(names, desc="shards", disable=not sys.stderr.isatty()) for problem in problems(folder, name)]
    if not found:  # counts of unreadable files would only repeat the errors
        found = [problem for path in sorted(folder.glob("*_meta.pkl")) for problem in meta_problems(path)]
    for problem in found:
        print(f"BAD {problem}")
    unlisted = len(set(names) - set(read_manifest(folder)))
    print(
        f"{folder}: {len(names)} shards, {len(found)} problems" + (f", {unlisted} without checksum (no manifest entry)" if unlisted else "")
    )
    return len(found)


def main(argv: list[str] | None = None) -> int:
    """Command line; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m mmpt_cli.shards", description="Look after feature and token shards.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("verify", help="check sizes, counts, checksums and finiteness of every shard of a folder")
    command.add_argument("folder", type=Path)
    args = parser.parse_args(argv)
    return 1 if verify(args.folder) else 0


if __name__ == "__main__":
    sys.exit(main())
