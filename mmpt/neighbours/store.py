"""Vectors of many videos on disk: memory-mapped, grown and shrunk by video, whole after every crash.

    index.json          width, unit vectors or not, origin; segments with their videos and checksums
    s000001/codes.i8    (n, D) int8: each vector divided by its own step, rounded
    s000001/exact.f16   (n, D) float16: what scores are made of in the end
    s000001/rows.f32    (n, 5) step; bound of the rounding; length of what the codes stand for; start, end

A segment is written under another name, made durable, renamed, and only then noted in index.json, which is
replaced whole. What a crash leaves is a folder that nothing names; the next writer removes it. Removing a
video is a line in index.json; `compact` gives its room back. Times are seconds.

Letters: n vectors of a segment, D width.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import re
import shutil
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmpt.utils.files import atomic_write, file_sha256
from mmpt.utils.text import read_json, shown

MANIFEST, FORMAT, LEVELS = "index.json", 1, 127
FILES = {"codes.i8": np.int8, "exact.f16": np.float16, "rows.f32": np.float32}
COLUMNS = 5
ROWS_PER_SEGMENT = 1 << 20
SECONDS_PER_SEGMENT = 300.0  # of work that a crash may cost
Item = tuple[str, np.ndarray, np.ndarray]


class Row(NamedTuple):
    """The columns of `rows.f32`, each (n,)."""

    step: np.ndarray
    error: np.ndarray
    reach: np.ndarray
    start_s: np.ndarray
    end_s: np.ndarray


@dataclass
class Segment:
    """What index.json says of a segment.

    Attributes:
        name: of its folder.
        videos: id -> (first row, number of rows), in the order of the rows.
        removed: ids that are not to be found.
        sha256: file -> checksum.
    """

    name: str
    videos: dict[str, tuple[int, int]] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    sha256: dict[str, str] = field(default_factory=dict)

    @property
    def n_rows(self) -> int:
        """n."""
        return sum(count for _, count in self.videos.values())


class Matrix:
    """A matrix in a file, of which rows are read when they are asked for: mapped rows would stay in memory.

    Args:
        path: of the file.
        kind: of the numbers.
        shape: (n, D).
    """

    def __init__(self, path: Path, kind: type[np.generic], shape: tuple[int, int]):
        self.path, self.dtype, self.shape = path, np.dtype(kind), shape
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """(..., D) of rows (...)."""
        rows = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else np.asarray(rows)
        found = np.empty((*rows.shape, self.shape[1]), self.dtype)
        flat, into = rows.reshape(-1), found.reshape(-1, self.shape[1])
        first = np.flatnonzero(np.diff(flat, prepend=flat[:1] - 2) != 1).tolist()  # of each run of rows
        for start, end in pairwise([*first, len(flat)]):
            run = into[start:end]
            if os.preadv(self._file, [run], int(flat[start]) * into.strides[0]) != run.nbytes:
                raise ValueError(f"{self.path}: has become shorter. Build the index again.")
        return found


class Mapped(NamedTuple):
    """A segment: its codes are memory-mapped, its exact vectors are read when they are asked for."""

    segment: Segment
    codes: np.ndarray
    exact: Matrix
    rows: Row


class VectorStore:
    """A folder of vectors.

    Args:
        folder: that `create` made.

    Raises:
        FileNotFoundError: there is no index.
        ValueError: it is damaged, or of another version; names the file.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        path = self.folder / MANIFEST
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no index there.")
        try:
            tree = read_json(path, dict)
            if tree["format"] != FORMAT:
                raise ValueError(f"format {tree['format']}, this version reads {FORMAT}")
            self.width, self.unit, self.origin = int(tree["width"]), bool(tree["unit"]), dict(tree["origin"])
            self.segments = [_segment(each) for each in tree["segments"]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: not an index, or a damaged one ({error}). Build it again.") from error

    @classmethod
    def create(cls, folder: str | Path, width: int, unit: bool, origin: Mapping[str, Any]) -> VectorStore:
        """An empty index.

        Args:
            folder: new, or without an index.
            width: D.
            unit: vectors and queries are scaled to unit length, so that dot products are cosines.
            origin: where the vectors come from; whatever JSON holds.
        """
        folder = Path(folder)
        if (folder / MANIFEST).exists():
            raise FileExistsError(f"{folder}: holds an index already.")
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder, width, unit, origin, [])
        return cls(folder)

    @property
    def videos(self) -> set[str]:
        """Ids that can be found."""
        return {v for segment in self.segments for v in segment.videos if v not in segment.removed}

    def __len__(self) -> int:
        return sum(n for s in self.segments for v, (_, n) in s.videos.items() if v not in s.removed)

    def add(
        self,
        items: Iterable[Item],
        rows_per_segment: int = ROWS_PER_SEGMENT,
        seconds_per_segment: float = SECONDS_PER_SEGMENT,
    ) -> int:
        """Add videos; one of a known id takes the place of the older.

        Args:
            items: id, vectors (n, D) and times (n, 2) in seconds, one video after the other.
            rows_per_segment, seconds_per_segment: after about so many rows, or so long, what is there is made
                durable and found from then on.

        Returns:
            How many videos were added. An error leaves the segments that are complete.

        Raises:
            ValueError: vectors of another width, without rows, or not finite; names the video.
        """
        done, waiting = 0, iter(items)
        with self._alone():
            while (count := self._add_segment(waiting, rows_per_segment, seconds_per_segment)) > 0:
                done += count
        return done

    def remove(self, ids: Iterable[str]) -> None:
        """Videos are not found any more.

        Raises:
            KeyError: an id that is not there.
        """
        ids, known = list(ids), self.videos
        if absent := [video for video in ids if video not in known]:
            raise KeyError(f"{self.folder}: holds no video {absent[0]!r}.")
        with self._alone():
            self._forget(ids)
            self._save()

    def describe(self, origin: Mapping[str, Any]) -> None:
        """Says anew where the vectors come from."""
        with self._alone():
            self.origin = dict(origin)
            self._save()

    def compact(self) -> None:
        """Rewrite what is there as few segments, without removed videos."""
        with self._alone():
            old, waiting = list(self.segments), self._items()
            names = {segment.name for segment in old}
            while self._add_segment(waiting, ROWS_PER_SEGMENT, math.inf, replace=False):
                pass
            self.segments = [segment for segment in self.segments if segment.name not in names]
            self._save()
            for name in names:
                shutil.rmtree(self.folder / name)

    def verify(self) -> None:
        """Read everything and compare checksums.

        Raises:
            ValueError: names the file that is damaged.
        """
        for segment in self.segments:
            for name, expected in segment.sha256.items():
                path = self.folder / segment.name / name
                if not path.is_file() or file_sha256(path) != expected:
                    raise ValueError(
                        f"{path}: damaged or missing; its checksum is another. Build the index again."
                    )

    def mapped(self) -> Iterator[Mapped]:
        """The segments, opened without being read.

        Raises:
            ValueError: a file of another size than index.json says.
        """
        for segment in self.segments:
            place = self.folder / segment.name
            for name, kind in FILES.items():
                columns = COLUMNS if name == "rows.f32" else self.width
                size = segment.n_rows * columns * np.dtype(kind).itemsize
                if not (place / name).is_file() or (place / name).stat().st_size != size:
                    raise ValueError(f"{place / name}: missing, or not {size} bytes. Build the index again.")
            shape = segment.n_rows, self.width
            # copy on write: torch takes no read-only memory without a warning, and nothing is written
            codes = np.memmap(place / "codes.i8", np.int8, "c", shape=shape)
            rows = np.fromfile(place / "rows.f32", np.float32).reshape(-1, COLUMNS)
            yield Mapped(segment, codes, Matrix(place / "exact.f16", np.float16, shape), Row(*rows.T.copy()))

    def _items(self) -> Iterator[Item]:
        for part in list(self.mapped()):
            for video, (first, count) in part.segment.videos.items():
                if video not in part.segment.removed:
                    rows = slice(first, first + count)
                    times = np.stack([part.rows.start_s[rows], part.rows.end_s[rows]], axis=1)
                    yield video, part.exact[rows], times

    def _add_segment(self, waiting: Iterator[Item], limit: int, limit_s: float, replace: bool = True) -> int:
        """Write one segment of what is waiting; how many videos it took."""
        numbers = [int(segment.name[1:]) for segment in self.segments]
        segment = Segment(f"s{max(numbers, default=0) + 1:06}")
        temporary = self.folder / f".{segment.name}.tmp"
        temporary.mkdir()
        first, until = 0, time.monotonic() + limit_s
        try:
            with contextlib.ExitStack() as stack:
                files = {name: stack.enter_context(open(temporary / name, "wb")) for name in FILES}
                while (first < limit and time.monotonic() < until) and (
                    item := next(waiting, None)
                ) is not None:
                    video, vectors, times = item
                    if video in segment.videos:
                        raise ValueError(f"{video!r} comes twice.")
                    codes, exact, rows = self._rounded(video, vectors, times)
                    for name, values in zip(FILES, (codes, exact, rows), strict=True):
                        files[name].write(values.astype(FILES[name]).tobytes())
                    segment.videos[video] = (first, len(codes))
                    first += len(codes)
                for file in files.values():
                    file.flush()
                    os.fsync(file.fileno())
            if not segment.videos:
                return 0
            segment.sha256 = {name: file_sha256(temporary / name) for name in FILES}
            temporary.rename(self.folder / segment.name)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        if replace:
            self._forget(segment.videos)
        self.segments.append(segment)
        if replace:
            self._save()
        return len(segment.videos)

    def _rounded(
        self, video: str, vectors: np.ndarray, times: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Codes, exact vectors and rows of one video."""
        vectors, times = np.asarray(vectors, dtype=np.float32), np.asarray(times, dtype=np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != self.width or not len(vectors):
            raise ValueError(f"{video}: vectors {vectors.shape}; expected (at least 1, {self.width}).")
        if times.shape != (len(vectors), 2):
            raise ValueError(f"{video}: times {times.shape} for {len(vectors)} vectors; expected (n, 2).")
        if self.unit:
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
        exact = vectors.astype(np.float16)
        if not np.isfinite(exact).all():
            raise ValueError(f"{video}: vectors hold NaN, or numbers that float16 does not.")
        # in float64, so that the bounds are bounds
        truth = exact.astype(np.float64)
        step = (np.abs(truth).max(1) / LEVELS).astype(np.float32)
        step[step == 0] = 1.0
        codes = np.clip(np.rint(truth / step[:, None]), -LEVELS, LEVELS).astype(np.int8)
        stands_for = codes * step[:, None].astype(np.float64)
        bounds = [np.linalg.norm(x, axis=1) for x in (truth - stands_for, stands_for)]
        error, reach = (np.nextafter(x.astype(np.float32), np.float32(np.inf)) for x in bounds)
        return codes, exact, np.stack([step, error, reach, times[:, 0], times[:, 1]], axis=1)

    def _forget(self, ids: Iterable[str]) -> None:
        for video in ids:
            for segment in self.segments:
                if video in segment.videos:
                    segment.removed.add(video)

    def _save(self) -> None:
        _write(self.folder, self.width, self.unit, self.origin, self.segments)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """The one writer of a folder, with what the last one noted; leftovers of a crash go."""
        with open(self.folder / ".lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RuntimeError(f"{self.folder}: another process is writing this index.") from error
            self.segments = type(self)(self.folder).segments
            known = {segment.name for segment in self.segments}
            for path in [*self.folder.glob(".s*.tmp"), *self.folder.glob("s[0-9]*")]:
                if path.is_dir() and path.name not in known:
                    shutil.rmtree(path)
            yield


def _segment(tree: dict[str, Any]) -> Segment:
    """As index.json has it."""
    videos, rows = {}, 0
    for video, (first, count) in tree["videos"].items():
        if type(count) is not int or count < 1 or first != rows:
            raise ValueError(f"rows {first!r} and {count!r} of {video}, where {rows} was next")
        videos[video], rows = (rows, count), rows + count
    segment = Segment(tree["name"], videos, set(tree["removed"]), dict(tree["sha256"]))
    if not re.fullmatch("s[0-9]{6,}", segment.name) or not segment.removed <= videos.keys():
        raise ValueError(f"segment {segment.name!r} with removed {shown(str(tree['removed']))}")
    return segment


def _write(folder: Path, width: int, unit: bool, origin: Mapping[str, Any], segments: list[Segment]) -> None:
    tree = {"format": FORMAT, "width": width, "unit": unit, "origin": dict(origin)}
    with atomic_write(folder / MANIFEST, "w") as file:
        listed = [asdict(segment) | {"removed": sorted(segment.removed)} for segment in segments]
        json.dump(tree | {"segments": listed}, file)
