"""What a folder of shards holds: per kind of shard its counts, hours, bytes, lengths, types and passports."""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.utils import load_plain_pickle
from mmpt.utils.shardedtensor import ShardedTensor, read_manifest
from mmpt_cli.shards_verify import shard_names

NAME = re.compile(r"(?P<before>(?:.*\.)?)(?P<split>train|val)_(?P<shard>\d+)(?P<after>(?:\.\w+)?)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which folder, and how to show it."""
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", action="store_true", help="print JSON")


def kinds(folder: Path) -> dict[str, list[str]]:
    """Kind (`train`, `text.train .startends`) -> its shard names in order of their numbers."""
    found = defaultdict(list)
    for name in shard_names(folder):
        match = NAME.fullmatch(name)
        if match:
            found[f"{match['before']}{match['split']}_*{match['after']}"].append((int(match["shard"]), name))
    return {kind: [name for _, name in sorted(names)] for kind, names in sorted(found.items())}


def describe(folder: Path, names: list[str]) -> dict[str, Any]:
    """Numbers of one kind of shard; only headers and offsets are read."""
    manifest = read_manifest(folder)
    shards = [ShardedTensor.load(folder / name, mmap_mode="r") for name in names]
    lengths = np.concatenate([shard.lengths() for shard in shards])
    passports = {json.dumps(manifest.get(name, {}).get("passport", {}), sort_keys=True) for name in names}
    result = {
        "shards": len(shards),
        "items": len(lengths),
        "empty": int((lengths == 0).sum()),
        "rows": int(lengths.sum()),
        "row": sorted({f"{shard.data.dtype}{list(shard.data.shape[1:])}" for shard in shards}),
        "GiB": sum(shard.data.nbytes for shard in shards) / 2**30,
        "rows per item (least, median, most)": [int(q) for q in np.quantile(lengths, (0, 0.5, 1))],
        "passports": [json.loads(passport) for passport in sorted(passports)],
        "unlisted": sum(name not in manifest for name in names),
    }
    seconds = {passport.get("seconds_per_feature") for passport in result["passports"]} - {None}
    if len(seconds) == 1:
        result["hours"] = result["rows"] * seconds.pop() / 3600
    return result


def stats(args: argparse.Namespace) -> int:
    """Print what is there; 1 where there is nothing."""
    report = {kind: describe(args.folder, names) for kind, names in kinds(args.folder).items()}
    for path in sorted(args.folder.glob("*_meta.pkl")):
        ids = [name for names in load_plain_pickle(path).values() for name in names]
        report[path.name] = {"ids": len(ids), "different ids": len(set(ids))}
    if args.json:
        print(json.dumps(report, indent=1))
    else:
        for kind, values in report.items():
            print(kind)
            for key, value in values.items():
                print(f"    {key}: {f'{value:,.2f}' if isinstance(value, float) else value}")
    return 0 if report else 1
