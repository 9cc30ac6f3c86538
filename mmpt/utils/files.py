"""Files that are either whole or absent."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

BLOCK = 1 << 20  # bytes


@contextmanager
def atomic_write(path: str | Path, mode: str = "wb") -> Iterator[IO]:
    """Open a temporary neighbour of `path`; it takes the final name only once it is complete and on disk.

    A reader, or a run started after a crash, sees the old file or the new one, never half of one.

    Args:
        path: final name; its folder is created.
        mode: "wb", "w+b" or "w".
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # a name that nobody can foresee, and never through a link that lies there
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, mode.replace("w", "x"), encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file, read in blocks."""
    with open(path, "rb") as file:
        return stream_sha256(file)


def stream_sha256(file: BinaryIO) -> str:
    """SHA-256 of the rest of an open file."""
    digest = hashlib.sha256()
    while block := file.read(BLOCK):
        digest.update(block)
    return digest.hexdigest()


def version_of(path: str | Path) -> tuple[int, int] | None:
    """Size and time of change of a file, one of which differs once it is written anew; None: no file."""
    try:
        about = os.stat(path)
    except FileNotFoundError:
        return None
    return about.st_size, about.st_mtime_ns


def sync_folder(folder: Path) -> None:
    """Make new and renamed files in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
