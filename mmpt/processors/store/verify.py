"""Checks of a folder of shards: sizes, offsets, counts, checksums, finite numbers, and the counts of the meta
pickles."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mmpt.utils import atomic_write
from mmpt.utils.files import file_sha256
from mmpt.utils.safe_pickle import load_plain_pickle
from mmpt.utils.shardedtensor import SUFFIXES, ShardedTensor, ShardError, read_manifest, seal

BLOCK_ROWS = 1 << 16
PASSED = ".verified.json"  # shard -> size and time of its files when it passed


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
            yield (
                f"{folder / file}: its SHA-256 is not that of the manifest; the content changed. Copy "
                "or build the shard again."
            )
    if shard.data.dtype.kind == "f":
        for start in range(0, len(shard.data), BLOCK_ROWS):
            finite = np.isfinite(shard.data[start : start + BLOCK_ROWS]).all(
                axis=tuple(range(1, shard.data.ndim))
            )
            if not finite.all():
                row = start + int(np.argmin(finite))
                item = int(np.searchsorted(shard.starts, row, side="right")) - 1
                yield (
                    f"{folder / name}_data.npy: NaN or infinite values in row {row} (item {item}). "
                    "Extract that video again."
                )
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


@dataclass(frozen=True)
class Verdict:
    """What was found in a folder.

    Attributes:
        n_shards: how many there are.
        problems: one sentence each.
        skipped: shards left out since they had passed before.
        unlisted: shards without an entry in the manifest, so without checksum.
    """

    n_shards: int
    problems: list[str]
    skipped: int
    unlisted: list[str]


def verify(folder: Path, resume: bool = False, seals: bool = False) -> Verdict:
    """Check the shards of a folder.

    Args:
        folder: where they are.
        resume: leave out shards that passed before and did not change since.
        seals: enter good shards that the manifest does not list, with their checksums.

    Raises:
        FileNotFoundError: there are no shards.
    """
    names = shard_names(folder)
    if not names:
        raise FileNotFoundError(f"{folder}: no shards (*_data.npy with *_starts.npy).")
    found, skipped = _check_all(folder, names, resume)
    if not found:  # counts of unreadable files would only repeat the errors
        found = [problem for path in sorted(folder.glob("*_meta.pkl")) for problem in meta_problems(path)]
    unlisted = sorted(set(names) - set(read_manifest(folder)))
    if seals and not found:
        for name in tqdm(unlisted, desc="sealing", disable=None):
            seal(folder / name)
        unlisted = []
    return Verdict(len(names), found, skipped, unlisted)


def _check_all(folder: Path, names: list[str], resume: bool) -> tuple[list[str], int]:
    """All problems, and how many shards were left out since they had passed; what passes is noted as it does,
    for a run that is stopped."""
    passed = _read_passed(folder) if resume else {}
    found, skipped = [], 0
    for name in tqdm(names, desc="shards", disable=None):
        state = _state(folder, name)
        if passed.get(name) == state:
            skipped += 1
            continue
        passed.pop(name, None)
        wrong = list(problems(folder, name))
        found += wrong
        if resume and not wrong:
            passed[name] = state
            with atomic_write(folder / PASSED, "w") as file:
                json.dump(passed, file)
    return found, skipped


def _read_passed(folder: Path) -> dict[str, list]:
    path = folder / PASSED
    return json.loads(path.read_text()) if path.is_file() else {}


def _state(folder: Path, name: str) -> list:
    files = [folder / f"{name}{suffix}" for suffix in SUFFIXES]
    stats = [file.stat() for file in files if file.exists()]
    return [[stat.st_size, stat.st_mtime_ns] for stat in stats] + [read_manifest(folder).get(name)]
