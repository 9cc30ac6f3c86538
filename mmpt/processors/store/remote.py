"""Shards kept elsewhere, in any folder that fsspec knows (`s3://...`, `gs://...`, `https://...`), copied here
once and checked.

A file listed in the folder's manifest (`shards.json`) is kept only if its SHA-256 is the listed one; any
other (`train_meta.pkl`) is fetched again when the store says that it changed. Copies stay until somebody
deletes them.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from mmpt.utils.files import atomic_write
from mmpt.utils.optional import optional_import
from mmpt.utils.shardedtensor import MANIFEST, SUFFIXES, ShardError, read_manifest

logger = logging.getLogger(__name__)

BLOCK = 1 << 22


def is_remote(path: str | Path) -> bool:
    """Whether a path is a URL."""
    return "://" in str(path)


def local_file(path: str | Path, cache_dir: str | Path | None = None) -> Path:
    """The path itself, or the local copy of a URL."""
    if not is_remote(path):
        return Path(path)
    folder, name = str(path).rsplit("/", 1)
    return remote_folder(folder, cache_dir).file(name)


def local_shard(path: str | Path, cache_dir: str | Path | None = None) -> Path:
    """The same for a shard (a path without `_data.npy`)."""
    if not is_remote(path):
        return Path(path)
    folder, name = str(path).rsplit("/", 1)
    return remote_folder(folder, cache_dir).shard(name)


def remote_folder(url: str, cache_dir: str | Path | None = None) -> RemoteFolder:
    """One per URL and process: connections do not survive a fork."""
    return _remote_folder(
        url, str(cache_dir or os.environ.get("MMPT_CACHE") or Path.home() / ".cache" / "mmpt"), os.getpid()
    )


@lru_cache
def _remote_folder(url: str, cache_dir: str, pid: int) -> RemoteFolder:
    return RemoteFolder(url, Path(cache_dir))


class RemoteFolder:
    """A remote folder of shards and its local copy.

    Args:
        url: of the folder.
        cache_dir: where copies of all folders are kept; this one gets a folder of its own there.

    Raises:
        ImportError: fsspec, or the package behind this kind of URL, is not installed.
    """

    def __init__(self, url: str, cache_dir: Path):
        fsspec = optional_import("fsspec")
        try:
            self.fs, self.root = fsspec.core.url_to_fs(url)
        except ImportError as error:
            raise ImportError(f"{url} needs a further package: {error}") from error
        self.url = url
        self.folder = cache_dir / f"{Path(self.root).name}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"

    @cached_property
    def checksums(self) -> dict[str, str]:
        """File name -> SHA-256, from the manifest as it is now."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked(MANIFEST):
            self._download(MANIFEST, None)
        return {
            name: digest
            for entry in read_manifest(self.folder).values()
            for name, digest in entry["sha256"].items()
        }

    def file(self, name: str) -> Path:
        """The local copy of a file.

        Raises:
            FileNotFoundError: no such file there.
            ShardError: what arrived is not what the manifest lists.
        """
        expected = self.checksums.get(name)
        path, stamp = self.folder / name, self.folder / f".{name}.stamp"
        with self._locked(name):
            version = expected or self._version(name)
            if not (path.exists() and stamp.exists() and stamp.read_text() == version):
                stamp.unlink(missing_ok=True)
                self._download(name, expected)
                with atomic_write(stamp, "w") as file:
                    file.write(version)
        return path

    def shard(self, name: str) -> Path:
        """The local copy of a shard, without `_data.npy`."""
        for suffix in SUFFIXES:
            self._listed(name + suffix)
        return self.folder / name

    def lengths(self, name: str) -> np.ndarray:
        """Rows per item of a shard; fetches only the small one of its two files."""
        starts = np.load(self._listed(f"{name}{SUFFIXES[1]}"), allow_pickle=False)
        return np.diff(starts)

    def _listed(self, name: str) -> Path:
        if name not in self.checksums:
            raise ShardError(
                f"{self.url}/{name}: not listed in {MANIFEST} there. Check the name; of shards without "
                "checksums, "
                "`mmpt shards verify FOLDER --seal` makes the list before they are uploaded."
            )
        try:
            return self.file(name)
        except FileNotFoundError as error:
            raise ShardError(
                f"{self.url}/{name}: no such shard file, though {MANIFEST} lists it. Upload it again."
            ) from error

    def _version(self, name: str) -> str:
        try:
            return self.fs.ukey(f"{self.root}/{name}")
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{self.url}/{name}: no such file. Check dataset.vfeat_dir and dataset.tfeat_dir."
            ) from error

    def _download(self, name: str, expected: str | None) -> None:
        logger.info("fetching %s/%s", self.url, name)
        digest = hashlib.sha256()
        try:
            with (
                self.fs.open(f"{self.root}/{name}", "rb") as source,
                atomic_write(self.folder / name) as file,
            ):
                while block := source.read(BLOCK):
                    digest.update(block)
                    file.write(block)
                if expected is not None and digest.hexdigest() != expected:
                    raise ShardError(
                        f"{self.url}/{name}: what arrived is not what {MANIFEST} lists (SHA-256). Upload "
                        "the shard again."
                    )
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{self.url}/{name}: no such file. A remote folder of shards needs its {MANIFEST}."
            ) from error
        except OSError as error:
            raise OSError(f"{self.url}/{name} could not be copied to {self.folder}: {error}") from error

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """One process fetches a file, the others of this machine wait for it."""
        with open(self.folder / f".{name}.lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
