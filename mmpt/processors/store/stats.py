"""What a folder of shards holds: per kind of shard its counts, hours, bytes, lengths, types and passports."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.processors.store.verify import shard_names
from mmpt.utils import load_index
from mmpt.utils.shardedtensor import ShardedTensor, read_manifest

NAME = re.compile(r"(?P<before>(?:.*\.)?)(?P<split>train|val)_(?P<shard>\d+)(?P<after>(?:\.\w+)?)")


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


def report(folder: Path) -> dict[str, dict[str, Any]]:
    """Kind of shard, or name of an index, -> its numbers; empty where there is nothing."""
    found = {kind: describe(folder, names) for kind, names in kinds(folder).items()}
    for path in sorted(folder.glob("*_meta.pkl")):
        ids = [name for names in load_index(path).values() for name in names]
        found[path.name] = {"ids": len(ids), "different ids": len(set(ids))}
    return found
