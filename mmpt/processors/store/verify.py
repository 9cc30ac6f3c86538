"""Checks of a folder of shards: sizes, offsets, counts, checksums, finite numbers, and the counts of the meta
pickles."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mmpt.processors.store.passport import seconds_per_row
from mmpt.utils import atomic_write
from mmpt.utils.files import file_sha256
from mmpt.utils.shardedtensor import SUFFIXES, ShardedTensor, ShardError, load_index, read_manifest, seal
from mmpt.utils.text import first_of, read_json

BLOCK_ROWS = 1 << 16
NAMED = 5
TIMES = re.compile(r".*\.(?P<features>(train|val)_\d+)\.startends")
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


@dataclass(frozen=True)
class Times:
    """What is wrong with the times of captions beside features; items are videos.

    Attributes:
        n: captions.
        impossible: items with a caption that ends before it starts, starts before 0, or has NaN for a time.
        unsorted: items whose captions are out of order.
        behind: captions that begin behind the features of their item.
        late: items with such captions.
    """

    n: int
    impossible: list[int]
    unsorted: list[int]
    behind: int
    late: list[int]


def check_times(times: ShardedTensor, seconds: np.ndarray) -> Times:
    """Captions against features.

    Args:
        times: (start, end) of each caption, the captions of an item together.
        seconds: (items,) of features.
    """
    start, end = np.asarray(times.data, dtype=np.float64).T
    item = np.repeat(np.arange(len(times)), times.lengths())
    impossible = ~((end >= start) & (start >= 0) & np.isfinite(end))
    unsorted = np.zeros(len(start), dtype=bool)
    unsorted[1:] = (np.diff(start) < 0) & (np.diff(item) == 0)
    behind = start >= seconds[item]
    found = (np.unique(item[mask]).tolist() for mask in (impossible, unsorted, behind))
    bad, out_of_order, late = found
    return Times(len(start), bad, out_of_order, int(behind.sum()), late)


def caption_findings(
    times_path: str | Path, features_path: str | Path, ids: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
    """What is wrong with a shard of captions beside its shard of features, and what is to be known of it.

    Args:
        times_path: the shard `....train_0.startends`.
        features_path: the shard `train_0`.
        ids: of its items, for the messages.

    Raises:
        ShardError: one of them cannot be opened.
    """
    times = ShardedTensor.load(times_path, mmap_mode="r")
    features = ShardedTensor.load(features_path, mmap_mode="r")
    if len(times) != len(features):
        return [f"{times_path}: {len(times)} items, {features_path} has {len(features)}."], []
    if times.data.shape[1:] != (2,) or times.data.dtype.kind != "f":
        shape = f"{times.data.dtype}{list(times.data.shape[1:])}"
        return [f"{times_path}: rows are {shape}, expected two numbers, start and end in seconds."], []
    found = check_times(times, seconds_per_row(features_path) * features.lengths())

    def named(items: list[int]) -> str:
        return first_of([ids[i] if i < len(ids) else f"item {i}" for i in items], NAMED)

    problems, notes = [], []
    if found.impossible:
        problems.append(
            f"{times_path}: {len(found.impossible)} videos have captions that end before they start, start "
            f"before 0, or have no number for a time: {named(found.impossible)}. Make the captions again."
        )
    if found.unsorted:
        problems.append(
            f"{times_path}: {len(found.unsorted)} videos have captions out of order: "
            f"{named(found.unsorted)}. Make them again, or train with dataset.caption_times: sort."
        )
    if found.behind > found.n / 2:
        problems.append(
            f"{times_path}: {found.behind} of {found.n} captions begin behind the features of their video: "
            f"{named(found.late)}. Are they of other videos, or in milliseconds?"
        )
    elif found.behind:
        notes.append(
            f"{times_path}: {found.behind} of {found.n} captions, of {len(found.late)} videos, begin behind "
            f"the features, and are not drawn: {named(found.late)}"
        )
    return problems, notes


def _captions(folder: Path, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The same of all shards of captions in a folder that have features beside them."""
    problems, notes = [], []
    indexes = {path.name: load_index(path) for path in folder.glob("*_meta.pkl")}
    for name in names:
        match = TIMES.fullmatch(name)
        if match is None or match["features"] not in names:
            continue
        split, _, shard = match["features"].partition("_")
        ids = indexes.get(f"{split}_meta.pkl", {}).get(int(shard), [])
        wrong, known = caption_findings(folder / name, folder / match["features"], ids)
        problems += wrong
        notes += known
    return problems, notes


def meta_problems(path: Path) -> Iterator[str]:
    """Shards whose number of items is not the number of ids that the meta pickle lists for them."""
    split = path.name.removesuffix("_meta.pkl")
    for shard, ids in load_index(path).items():
        files = [
            f
            for f in path.parent.glob(f"*_{shard}*_starts.npy")
            if re.search(rf"(^|\.){re.escape(split)}_{shard}(\.[a-z_]+)?_starts\.npy$", f.name)
        ]
        if not files:
            yield f"{path}: lists shard {shard}, but {path.parent} has no {split}_{shard}_starts.npy."
        for file in files:
            items = len(ShardedTensor.load(str(file).removesuffix(SUFFIXES[1]), mmap_mode="r"))
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
        notes: what is to be known of captions beside their features.
    """

    n_shards: int
    problems: list[str]
    skipped: int
    unlisted: list[str]
    notes: list[str]


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
    notes: list[str] = []
    if not found:  # counts of unreadable files would only repeat the errors
        found = [problem for path in sorted(folder.glob("*_meta.pkl")) for problem in meta_problems(path)]
    if not found:
        found, notes = _captions(folder, names)
    unlisted = sorted(set(names) - set(read_manifest(folder)))
    if seals and not found:
        for name in tqdm(unlisted, desc="sealing", disable=None):
            seal(folder / name)
        unlisted = []
    return Verdict(len(names), found, skipped, unlisted, notes)


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
    return read_json(path, dict, empty=True) if path.is_file() else {}


def _state(folder: Path, name: str) -> list:
    files = [folder / f"{name}{suffix}" for suffix in SUFFIXES]
    stats = [file.stat() for file in files if file.exists()]
    return [[stat.st_size, stat.st_mtime_ns] for stat in stats] + [read_manifest(folder).get(name)]
