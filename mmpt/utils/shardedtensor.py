"""Arrays of different lengths laid end to end in one file: how features and tokens of thousands of videos are
stored.

A shard `train_0` is two files: `train_0_data.npy` (all rows, one video after the other) and
`train_0_starts.npy` (int64, n + 1 row offsets, the first 0, the last the number of rows). A folder may hold
`shards.json`, the manifest: per shard its counts, dtype, row shape, a SHA-256 per file and the passport that
says what the rows are, e.g.

    {"format": 1, "shards": {"train_0": {"items": 4096, "rows": 1622016, "dtype": "float16", "row_shape":
    [512],
     "sha256": {"train_0_data.npy": "9f0c...", "train_0_starts.npy": "51ab..."},
     "passport": {"backbone": "s3d", "frames_per_second": 30, "seconds_per_feature": 1.0, "normalised":
     true}}}}
"""

from __future__ import annotations

import fcntl
import json
import math
import mmap
import os
import time
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from mmpt.utils.bus_error import name_bus_errors
from mmpt.utils.files import atomic_write, file_sha256, version_of
from mmpt.utils.safe_pickle import load_plain_pickle
from mmpt.utils.text import TextError, check_id, check_kind, check_record, is_id, read_json, shown

MANIFEST = "shards.json"
SUFFIXES = ("_data.npy", "_starts.npy")
EXPANSION, UNPACKED = 200, 1 << 28  # of a .npz file: times its size, and bytes that any may unpack to
ZIP_END = 22  # bytes of the record that ends an archive, with the number of its files
LOOK_S = 1.0  # between looks at whether a shard is still the file that was opened
MOST_SHARDS = 1 << 31  # their numbers are kept in 32 bits
Item = TypeVar("Item")


class ShardError(ValueError):
    """A shard is missing, truncated, or contradicts itself or its manifest."""


class Version(NamedTuple):
    """Which file a shard was opened from: its rows' size and time, and their checksum where it is known."""

    of: tuple[int, int] | None
    sha256: str | None


class ShardedTensor:
    """n arrays of shape (length_i, ...) as one array of rows and n + 1 offsets.

    Args:
        data: all rows, (sum of lengths, ...).
        starts: row offsets, (n + 1,) int64; item i is `data[starts[i]:starts[i + 1]]`.
        name: what to call it in errors.

    Attributes:
        version: of its file, which may not change while it is read; None: not in a file.

    Raises:
        ShardError: the offsets do not describe the rows.
    """

    def __init__(self, data: np.ndarray, starts: np.ndarray, name: str = "sharded tensor"):
        starts = np.asarray(starts)
        if starts.ndim != 1 or len(starts) < 2 or starts.dtype.kind not in "iu":
            raise ShardError(
                f"{name}: starts has shape {starts.shape} and dtype {starts.dtype}, expected (items + 1,) "
                "integers with at least one item."
            )
        if starts[0] != 0 or starts[-1] != len(data) or (np.diff(starts) < 0).any():
            raise ShardError(
                f"{name}: starts runs from {starts[0]} to {starts[-1]}, expected to rise from 0 to the "
                f"{len(data)} rows of data. "
                f"The two files do not belong together, or one is truncated: copy or build the shard again."
            )
        self.data = data
        self.starts = starts.astype(np.int64, copy=False)
        mapped = data.base if isinstance(data.base, np.memmap) else None
        self._map = None if mapped is None else mapped._mmap
        self._bytes = 0 if mapped is None else mapped.offset + data.nbytes  # that its file has to have
        self._name = name
        self.version: Version | None = None
        self._next_look, self._process = 0.0, 0

    @classmethod
    def from_list(cls, arrays: Iterable[np.ndarray]) -> ShardedTensor:
        """Join arrays that agree in all but their first dimension; length 0 is allowed."""
        arrays = [np.asarray(array) for array in arrays]
        if not arrays:
            raise ShardError("a sharded tensor needs at least one array, got an empty list.")
        return cls(np.concatenate(arrays), np.cumsum([0, *map(len, arrays)], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        """Rows of item `index`: a view, no copy.

        Raises:
            ShardError: the file was made shorter since it was opened, and to read it would kill the process;
                or another file has taken its place.
        """
        if self._map is not None:
            self._check_file(self._map.size())
        if not -len(self) <= index < len(self):
            raise IndexError(f"item {index} of a sharded tensor of {len(self)} items.")
        index %= len(self)
        return self.data[self.starts[index] : self.starts[index + 1]]

    def _check_file(self, n_bytes: int) -> None:
        if n_bytes < self._bytes:
            raise ShardError(
                f"{self._name}_data.npy: {n_bytes} bytes, {self._bytes} when it was opened: it was "
                "cut while this process read it. Restore it, and start again."
            )
        now = time.monotonic()
        if now < self._next_look and self._process == os.getpid():
            return
        self._next_look, self._process = now + LOOK_S, os.getpid()
        name_bus_errors()  # of what is cut between this check and the end of reading
        path = Path(f"{self._name}_data.npy")
        found = version_of(path)
        if self.version is None or found in (None, self.version.of):  # what is deleted can be read to the end
            return
        if self.version.sha256 is None or file_sha256(path) != self.version.sha256:
            raise ShardError(
                f"{path}: not the file that was opened: it was written anew while this process read it, and "
                "an epoch would hold items of both. Restore it, or start again."
            )
        self.version = self.version._replace(of=found)  # a copy of the same

    def lengths(self) -> np.ndarray:
        """Number of rows per item, (n,) int64."""
        return np.diff(self.starts)

    def expect_scattered_reads(self) -> None:
        """Have the system read nothing but what is asked for; on some machines it fetches megabytes round
        every page. See `read_ahead`."""
        if isinstance(self.data.base, np.memmap):
            self.data.base._mmap.madvise(mmap.MADV_RANDOM)

    def read_ahead(self, index: int) -> None:
        """Let the system fetch the rows of item `index` in one go, while this process goes on; without effect
        unless they are mapped."""
        mapped = self.data.base
        if not isinstance(mapped, np.memmap):
            return
        row_bytes = self.data.strides[0]
        begin = mapped.offset % mmap.ALLOCATIONGRANULARITY + int(self.starts[index]) * row_bytes
        page = begin - begin % mmap.PAGESIZE
        length = begin - page + int(self.starts[index + 1] - self.starts[index]) * row_bytes
        if length:
            mapped._mmap.madvise(mmap.MADV_WILLNEED, page, length)

    def save(self, path: str | Path) -> None:
        """Write `<path>_data.npy` and `<path>_starts.npy`, each whole or not at all.

        Where the folder has a manifest the shard is entered in it, so that it never contradicts the files.
        """
        path = Path(path)
        for suffix, array in zip(SUFFIXES, (self.data, self.starts), strict=True):
            with atomic_write(f"{path}{suffix}") as file:
                np.save(file, array, allow_pickle=False)
        if (path.parent / MANIFEST).exists():
            _enter_in_manifest(path, self.data.dtype, self.data.shape, len(self), passport={})

    @classmethod
    def load(cls, path: str | Path, mmap_mode: str | None = None) -> ShardedTensor:
        """Open a shard; sizes, offsets and (where there is a manifest) counts are checked, checksums are not.

        Args:
            path: the shard without `_data.npy`.
            mmap_mode: "r" maps the rows (read-only, shared between processes); the offsets are always read.

        Raises:
            ShardError: a file is missing, truncated or does not match; the message names it.
        """
        version = version_of(f"{path}_data.npy")
        data = _open_npy(Path(f"{path}_data.npy"), mmap_mode)
        starts = _open_npy(Path(f"{path}_starts.npy"), None)
        tensor = cls(data, starts, name=str(path))
        entry = read_manifest(Path(path).parent).get(Path(path).name)
        if entry is not None:
            found = {
                "items": len(tensor),
                "rows": len(data),
                "dtype": data.dtype.name,
                "row_shape": list(data.shape[1:]),
            }
            wrong = [
                f"{key} {found[key]} (manifest: {entry[key]})" for key in found if found[key] != entry[key]
            ]
            if wrong:
                raise ShardError(
                    f"{path}: does not match {MANIFEST} beside it: {', '.join(wrong)}. Copy or build the "
                    "shard again."
                )
        sha256 = None if entry is None else entry["sha256"][f"{Path(path).name}{SUFFIXES[0]}"]
        tensor.version = Version(version, sha256)
        return tensor


class ShardWriter:
    """Writes one shard array by array, so that no more than one array is in memory.

        with ShardWriter("feature/train_0", passport={"backbone": "s3d", ...}) as writer:
            for video in videos:
                writer.append(features[video])

    Leaving the block gives the files their names and enters the shard in the manifest; an exception leaves
    nothing behind.

    Args:
        path: the shard without `_data.npy`.
        dtype: of the rows; default that of the first array.
        passport: what the rows are: backbone, frames_per_second, seconds_per_feature, normalised, ...
    """

    def __init__(self, path: str | Path, dtype: Any = None, passport: Mapping[str, Any] | None = None):
        self.path = Path(path)
        self.dtype = None if dtype is None else np.dtype(dtype)
        self.passport = dict(passport or {})
        self.row_shape: tuple[int, ...] | None = None
        self._starts = [0]

    def __enter__(self) -> ShardWriter:
        self._stack = ExitStack()
        self._file = self._stack.enter_context(atomic_write(f"{self.path}_data.npy"))
        return self

    def append(self, array: np.ndarray) -> None:
        """Add one item, (length, ...); all items share dtype and row shape.

        Raises:
            ShardError: another row shape than before, or floats that are not finite.
        """
        array = np.asarray(array)
        if self.row_shape is None:
            self.dtype = self.dtype or array.dtype
            self.row_shape = array.shape[1:]
            self._write_header((0, *array.shape[1:]))
        if array.ndim == 0 or array.shape[1:] != self.row_shape:
            raise ShardError(
                f"{self.path}: item {len(self._starts) - 1} has shape {array.shape}, expected rows of "
                f"shape {self.row_shape}."
            )
        array = np.ascontiguousarray(array, dtype=self.dtype)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ShardError(
                f"{self.path}: item {len(self._starts) - 1} holds NaN or infinity (as {self.dtype}). "
                "Extract it again or leave it out."
            )
        self._file.write(array.data if array.size else b"")
        self._starts.append(self._starts[-1] + len(array))

    def __exit__(self, kind, error, trace) -> None:
        with self._stack:  # an exception in here removes the unfinished file
            if error is not None:
                raise error
            if self.row_shape is None:
                raise ShardError(f"{self.path}: a shard needs at least one item, none was appended.")
            shape = (self._starts[-1], *self.row_shape)
            self._file.seek(0)
            self._write_header(shape)
        with atomic_write(f"{self.path}_starts.npy") as file:
            np.save(file, np.array(self._starts, dtype=np.int64))
        _enter_in_manifest(self.path, self.dtype, shape, len(self._starts) - 1, self.passport)

    def _write_header(self, shape: tuple[int, ...]) -> None:
        # numpy pads headers so that the first dimension can grow in place: both headers have one size
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)


def read_manifest(folder: str | Path) -> dict[str, dict]:
    """Shard name -> manifest entry of a folder; empty where there is no manifest (older shards)."""
    path = Path(folder) / MANIFEST
    try:
        stamp = path.stat().st_mtime_ns
    except FileNotFoundError:
        return {}
    return _parse_manifest(path, stamp)


@lru_cache(maxsize=16)
def _parse_manifest(path: Path, stamp: int) -> dict[str, dict]:
    try:
        shards = check_record(read_json(path, dict), str(path), shards=dict)["shards"]
        for name, entry in shards.items():
            where = f"{path}: shard {check_id(name, str(path))}"
            check_record(entry, where, items=int, rows=int, dtype=str, row_shape=list, sha256=dict)
            if set(entry["sha256"]) != {f"{name}{suffix}" for suffix in SUFFIXES}:
                raise TextError(
                    f"{where}: sha256 is of {shown(', '.join(entry['sha256']))}, expected its two files."
                )
            check_record(entry["sha256"], f"{where}: sha256", **dict.fromkeys(entry["sha256"], str))
            check_kind(entry.get("passport", {}), dict, f"{where}: passport")
    except TextError as error:
        raise ShardError(
            f"{error} It is not a shard manifest: restore it, or delete it to open the shards unchecked."
        ) from error
    return shards


def seal(path: str | Path) -> None:
    """Enter a shard that is there, but not listed, in the manifest of its folder."""
    shard = ShardedTensor.load(path, mmap_mode="r")
    _enter_in_manifest(Path(path), shard.data.dtype, shard.data.shape, len(shard), passport={})


def _enter_in_manifest(
    path: Path, dtype: np.dtype, shape: tuple[int, ...], items: int, passport: Mapping[str, Any]
) -> None:
    names = [f"{path.name}{suffix}" for suffix in SUFFIXES]
    entry = {
        "items": items,
        "rows": shape[0],
        "dtype": dtype.name,
        "row_shape": list(shape[1:]),
        "sha256": {name: file_sha256(path.parent / name) for name in names},
        "passport": dict(passport),
    }
    with open(path.parent / f".{MANIFEST}.lock", "w") as lock:
        fcntl.flock(
            lock, fcntl.LOCK_EX
        )  # jobs that write shards side by side must not lose each other's entries
        shards = {**read_manifest(path.parent), path.name: entry}
        with atomic_write(path.parent / MANIFEST, "w") as file:
            json.dump({"format": 1, "shards": shards}, file, indent=1)


def _open_npy(path: Path, mmap_mode: str | None) -> np.ndarray:
    """An array of a shard, whose rows lie one after the other."""
    try:
        return open_npy(path, mmap_mode)
    except FileNotFoundError as error:
        raise ShardError(
            f"{path}: no such shard file. Check dataset.vfeat_dir and dataset.tfeat_dir, and that the "
            "shard was copied."
        ) from error
    except ValueError as error:
        raise ShardError(
            f"{path}: truncated or damaged shard file ({error}). Copy or build the shard again."
        ) from error


def load_feature(path: str | Path, mmap_mode: str | None = None) -> np.ndarray:
    """The features of one video, `<id>.npy`: (seconds, ..) floating-point numbers.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a whole .npy file, or an array of another kind.
    """
    path = Path(path)
    try:
        feature = open_npy(path, mmap_mode, any_order=True)
    except ValueError as error:
        raise ValueError(f"{path}: not a whole .npy file ({error}). Extract the features again.") from error
    if feature.dtype.kind != "f" or feature.ndim < 2 or 0 in feature.shape[1:]:
        raise ValueError(
            f"{path}: {feature.dtype} of shape {feature.shape}, expected floating-point (seconds, D)."
        )
    return feature


def open_npy(path: Path, mmap_mode: str | None = None, any_order: bool = False) -> np.ndarray:
    """A .npy file as a plain array (np.memmap does much bookkeeping at every slice), refused unless it has
    exactly the size it states.

    Args:
        path: the file.
        mmap_mode: "r" maps it, None reads it.
        any_order: whether the array may be stored column by column, or its bytes in another order.

    Raises:
        FileNotFoundError: no such file.
        ValueError: what is wrong with it; the message does not name the file.
    """
    with open(path, "rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            read_header = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, column_major, dtype = read_header(file)
        except Exception as error:  # a header is Python text: each damage of it has an error of its own
            raise ValueError(str(error)[:200] or type(error).__name__) from error
        if dtype.hasobject:
            raise ValueError("it holds pickled objects")
        if column_major and len(shape) > 1 and not any_order:
            raise ValueError("its array is stored column by column, expected row by row")
        if not dtype.isnative and not any_order:
            raise ValueError(f"its bytes are of another order ({dtype.str})")
        if not all(type(n) is int for n in shape):
            raise ValueError(f"its header states the shape {shape}")
        begin = file.tell()
        expected = begin + math.prod(shape) * dtype.itemsize
        found = os.fstat(file.fileno()).st_size
        if found != expected or min(shape, default=0) < 0:
            raise ValueError(f"{found} bytes, expected {expected} for shape {shape}, {dtype}")
        order = "F" if column_major else "C"
        if mmap_mode is not None and 0 not in shape:
            name_bus_errors()
            return np.memmap(file, dtype, mmap_mode, begin, shape, order).view(np.ndarray)
        return np.fromfile(file, dtype).reshape(shape, order=order)


def load_index(path: str | Path) -> dict[int, list[str]]:
    """Shard number -> ids of its items in order, as `<split>_meta.pkl` holds them.

    Raises:
        ValueError: the pickle is something else, or an id is no name (see `check_id`).
    """
    found = load_plain_pickle(path)
    if not isinstance(found, dict) or not all(
        type(shard) is int and 0 <= shard < MOST_SHARDS and isinstance(ids, (list, tuple))
        for shard, ids in found.items()
    ):
        raise ValueError(f"{path}: expected a pickle of {{shard number: [video id, ...]}}.")
    for shard, ids in found.items():
        if not all(map(is_id, ids)):
            row = next(row for row, name in enumerate(ids) if not is_id(name))
            check_id(ids[row], f"{path}: shard {shard}, item {row}")
    return {shard: list(ids) for shard, ids in found.items()}


def in_shards(items: Sequence[Item], size: int) -> dict[int, list[Item]]:
    """Shard number -> its items, `size` of them in order."""
    return {k: list(items[start : start + size]) for k, start in enumerate(range(0, len(items), size))}


def load_npz(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a .npz file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is damaged, or something else; the message says what, and does not name the file.
    """
    most = EXPANSION * Path(path).stat().st_size + UNPACKED
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:  # whose checksums are compared as it is read
                entries = archive.infolist()
                if sum(entry.file_size for entry in entries) > most:
                    raise ValueError("it unpacks to far more than its size")
            file.seek(-ZIP_END, os.SEEK_END)
            if int.from_bytes(file.read()[10:12], "little") != len(entries):
                raise ValueError("arrays are missing")
            file.seek(0)
            with np.load(file, allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        except Exception as error:  # zip, zlib and numpy have errors of their own for each damage
            said = str(error)[:200] or type(error).__name__
            raise ValueError(f"not a whole .npz file: {said}") from error
