"""Checkpoint files that survive a kill at any moment: written beside, synced, renamed; verified before they
are trusted."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from fairseq.file_io import PathManager

from mmpt.checkpoints import shards
from mmpt.checkpoints.weights import broken_record, read_outline, read_stored, updates_of
from mmpt.utils.files import sync_folder

logger = logging.getLogger(__name__)


def save(obj: Any, filename: str, async_write: bool = False) -> None:
    """Write `obj` as `filename` all at once, after reading back what has been written.

    Raises:
        OSError: the disk is full, not writable, or keeps something else than it was given; what stood there
            before is untouched.
    """
    path = Path(filename)
    beside = path.with_name(path.name + ".tmp")
    with explained(path):
        try:
            beside.unlink(missing_ok=True)  # of a killed run; or a link that somebody else has put there
            with open(beside, "xb") as file:
                torch.save(obj, file)
                file.flush()
                os.fsync(file.fileno())
            problem = broken_record(beside)
            if problem is not None:
                raise OSError(f"read back, its {problem}")
            os.replace(beside, path)
        except (OSError, RuntimeError):
            beside.unlink(missing_ok=True)
            raise
    sync_folder(path.parent)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Raise what keeps a checkpoint from being written as an OSError with the cure."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        free = shutil.disk_usage(next(parent for parent in path.parents if parent.is_dir())).free
        raise OSError(
            f"checkpoint {path} could not be written ({error}); {free / 2**30:.2f} GiB are free there. "
            "Earlier checkpoints are intact: make room and start the same command again."
        ) from error


class AtomicPathManager(PathManager):
    """fairseq copies one saved file to `checkpoint_best.pt` and `checkpoint_last.pt` in place, which a kill
    would leave half-written."""

    @staticmethod
    def copy(src_path: str, dst_path: str, overwrite: bool = False) -> bool:
        """A second name for the same data (hard link) where the file system allows, else a synced copy;
        replaces `dst_path` at once."""
        beside = dst_path + ".tmp"
        Path(beside).unlink(missing_ok=True)
        try:
            os.link(src_path, beside)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.EMLINK, errno.ENOSYS):
                raise
            with open(src_path, "rb") as source, open(beside, "xb") as target:
                shutil.copyfileobj(source, target)
                target.flush()
                os.fsync(target.fileno())
        os.replace(beside, dst_path)
        Path(beside).unlink(missing_ok=True)  # renaming onto another name of the same file leaves both
        sync_folder(Path(dst_path).parent)
        return True


def remove_unused_shards(folder: Path) -> None:
    """Remove from a run folder the shards that no checkpoint in it names any more."""
    if not (folder / shards.FOLDER).is_dir():
        return
    named = set()
    try:
        for path in folder.glob("*.pt"):
            with contextlib.suppress(ValueError):  # damaged: its shards are of no use
                named.add(shards.named_by(read_outline(path)))
        for parts in (folder / shards.FOLDER).iterdir():
            if f"{shards.FOLDER}/{parts.name}" not in named:
                shutil.rmtree(parts)
    except OSError as error:  # no reason to end training
        logger.warning("old shards in %s are left for the next save: %s", folder, error)


def newest_intact(folder: str | Path) -> Path | None:
    """The checkpoint to resume from: of those that are not damaged, the one of most updates; None when there
    is none.

    Files that a backup brought back have other times, so only what they hold counts.

    Raises:
        ValueError: there are checkpoints and every one is damaged.
    """
    last, best = Path(folder) / "checkpoint_last.pt", Path(folder) / "checkpoint_best.pt"
    others = [p for p in Path(folder).glob("checkpoint*.pt") if p not in (last, best)]
    candidates = [path for path in (last, *others) if path.is_file()]
    if candidates and best.is_file():  # alone it may have been put there to start from
        candidates.append(best)
    intact = []
    for path in candidates:
        try:
            intact.append((updates_of(path), path))
        except (OSError, ValueError) as error:
            if damage(path) is None:
                intact.append((0, path))  # weights alone, to start from
            else:
                logger.error("%s Taking the checkpoint before it.", error)
    # of equals the first: the sort keeps their order
    for _, path in sorted(intact, key=lambda found: -found[0]):
        problem = damage(path)
        if problem is None:
            return path
        logger.error("%s Taking the checkpoint before it.", problem)
    if candidates:
        raise ValueError(
            f"all {len(candidates)} checkpoints in {folder} are damaged. Delete or move them to start "
            "afresh from restore_file."
        )
    return None


def damage(path: Path) -> str | None:
    """What keeps a checkpoint file from being loaded: a record's checksum, or what torch says; None when
    nothing does."""
    try:
        read_stored(path)
    except (OSError, ValueError) as error:
        return str(error)
    return None
