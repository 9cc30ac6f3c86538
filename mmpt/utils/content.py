"""What files hold, as checksums: the same content is the same under another path, time or owner.

A file that is named is read whole. Of the files in a folder, or behind a prefix such as `feat/narration.`,
small ones are read whole; of large ones the size and pieces spread over the file, so that terabytes of shards
cost some thousand reads.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from mmpt.utils.files import file_sha256, version_of

WHOLE = 1 << 20  # bytes; files in folders up to this size are read whole
PIECE = 1 << 16  # bytes
MOST_FILES = 4096  # of a folder; of more, as many are looked at, evenly spaced by name
READS = 8192  # of one folder, about
ITSELF = "."  # the name of a file that is named itself
# caches that reading a folder may leave in it
LEFT_BY_READERS = (".index", ".tmp", ".lock")

Digests = Mapping[str, str]  # name below the path -> checksum


def digests(path: str, names: Iterable[str] | None = None) -> dict[str, str]:
    """The checksums of what a path stands for: a file, a folder's files, or the files that begin with it.

    Args:
        path: where to look.
        names: look at these files alone, as an earlier call named them; None: choose.

    Returns:
        File name -> checksum; empty where there is nothing. Files that are gone are left out.
    """
    if os.path.isfile(path):
        return {ITSELF: file_sha256(path)}
    begin = os.path.join(path, "") if os.path.isdir(path) else path
    chosen = _chosen(begin) if names is None else list(names)
    pieces = min(16, max(2, READS // max(len(chosen), 1)))
    found = {name: Path(begin + name) for name in chosen}
    return {name: _sampled(file, pieces) for name, file in found.items() if file.is_file()}


def changed(before: Digests, path: str) -> list[str]:
    """The files that hold something else than before, or are gone; further files do not count."""
    now = digests(path, before)
    return [name for name, digest in before.items() if now.get(name) != digest]


def versions(path: str) -> dict[str, tuple[int, int] | None]:
    """The same files, each with its size and time, which are had without reading it."""
    if os.path.isfile(path):
        return {ITSELF: version_of(path)}
    begin = os.path.join(path, "") if os.path.isdir(path) else path
    return {name: version_of(begin + name) for name in _chosen(begin)}


def _chosen(begin: str) -> list[str]:
    folder, start = os.path.split(begin)
    if not os.path.isdir(folder or "."):
        return []
    with os.scandir(folder or ".") as entries:
        names = sorted(
            entry.name.removeprefix(start)
            for entry in entries
            if entry.name.startswith(start)
            and not entry.name.startswith(".")
            and not entry.name.endswith(LEFT_BY_READERS)
        )
    return names if len(names) <= MOST_FILES else names[:: -(-len(names) // MOST_FILES)]


def _sampled(path: Path, pieces: int) -> str:
    size = path.stat().st_size
    if size <= WHOLE or path.suffix == ".json":
        return file_sha256(path)
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        for piece in range(pieces):
            file.seek((size - PIECE) * piece // (pieces - 1))
            digest.update(file.read(PIECE))
    return f"{pieces} pieces {digest.hexdigest()}"
