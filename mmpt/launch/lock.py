"""One job at a time in a run folder: `job.lock`, held by the first process for as long as the job lives.

The lock is a file that is made at once or not at all, also on NFS, and renewed every few seconds. What a dead
job left is recognised on the same machine by process id and start time, elsewhere by a file that is not
renewed while one watches; clocks are not compared.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

LOCK = "job.lock"
RENEWED_S = 10.0  # seconds between two renewals
PATIENCE_S = 60.0  # seconds without one after which a job elsewhere is taken for dead
LOST = 75  # exit code of a job whose lock another one has taken: EX_TEMPFAIL


class FolderInUse(RuntimeError):
    """Another job trains in the folder."""


class JobLock:
    """Holds a run folder, as a context manager.

    Args:
        folder: the run folder; it is created.
        patience_s: how long a job elsewhere may keep silent.

    Raises:
        FolderInUse: on entry, where another job lives.
        OSError: on entry, where the folder cannot be written.
    """

    def __init__(self, folder: str | Path, patience_s: float = PATIENCE_S, renewed_s: float = RENEWED_S):
        self.path = Path(folder) / LOCK
        self.patience_s, self.renewed_s = patience_s, renewed_s
        self.owner = _this_process() | {"token": secrets.token_hex(8)}
        self._released = threading.Event()

    def __enter__(self) -> JobLock:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            while not self._make():
                self._clear_or_refuse()
        except OSError as error:
            raise OSError(unwritable(self.path.parent, error)) from error
        threading.Thread(target=self._renew, name="job lock", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._released.set()
        if self._is_ours():
            self.path.unlink(missing_ok=True)

    def _make(self) -> bool:
        """Whether the lock is ours now."""
        content = json.dumps(self.owner).encode()
        beside = self.path.with_name(f".{LOCK}.{self.owner['token']}")
        try:
            beside.write_bytes(content)
            os.link(beside, self.path)  # all at once, and refused where there is one; on NFS too
            return True
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
                raise
        finally:
            beside.unlink(missing_ok=True)
        try:  # a file system without hard links
            descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        with open(descriptor, "wb") as file:
            file.write(content)
        return True

    def _clear_or_refuse(self) -> None:
        found = self._read()
        if found is None:
            return
        content, _ = found
        owner = _parsed(content)
        alive = _is_alive(owner)
        if alive is None:
            logger.info(
                "%s was made by %s; waiting %.0f s to see whether that job lives",
                self.path,
                _name(owner),
                self.patience_s,
            )
            alive = self._is_renewed(found)
        if alive:
            raise FolderInUse(
                f"{self.path.parent} is in use by {_name(owner)}, which trains there"
                f"{' since ' + owner['since'] if 'since' in owner else ''}. Wait for it, end it, or choose "
                "another fairseq.checkpoint.save_dir."
            )
        aside = self.path.with_name(f".{LOCK}.{self.owner['token']}.left")
        try:
            os.rename(self.path, aside)  # of several that see the same left-over, one gets it
        except FileNotFoundError:
            return
        if aside.read_bytes() == content:
            logger.info("removed %s, left by %s, which is gone", self.path, _name(owner))
        elif not self.path.exists():
            os.rename(aside, self.path)  # made in between by somebody who lives
            return
        aside.unlink()

    def _is_renewed(self, before: tuple[bytes, int]) -> bool:
        end = time.monotonic() + self.patience_s
        while time.monotonic() < end:
            time.sleep(min(1.0, self.patience_s / 10))
            found = self._read()
            if found != before:
                return found is not None
        return False

    def _read(self) -> tuple[bytes, int] | None:
        """Content and time of renewal; None where there is no lock."""
        try:
            with open(self.path, "rb") as file:  # opening asks a file server, which a `stat` may not
                return file.read(), os.fstat(file.fileno()).st_mtime_ns
        except FileNotFoundError:
            return None

    def _is_ours(self) -> bool:
        found = self._read()
        return found is not None and _parsed(found[0]).get("token") == self.owner["token"]

    def _renew(self) -> None:
        while not self._released.wait(self.renewed_s):
            try:
                if self._is_ours():
                    os.utime(self.path)
                elif not self._released.wait(1.0) and not self._is_ours():  # not while it is put back
                    logger.critical(
                        "error: %s is no longer ours: this process stood still for so long that another job "
                        "took the folder. Ending, with nothing written (exit code %d).",
                        self.path,
                        LOST,
                    )
                    os._exit(LOST)
            except OSError as error:
                logger.info("%s could not be renewed: %s", self.path, error)


def unwritable(folder: Path, error: OSError) -> str:
    """What to say of a run folder that cannot be written."""
    return (
        f"fairseq.checkpoint.save_dir={folder}: {error.strerror or error}. Training writes checkpoints "
        "there: make it writable, or choose another folder."
    )


def _this_process() -> dict[str, Any]:
    found = {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    queue = ("SLURM_JOB_ID", "SLURM_RESTART_COUNT")
    return found | {name: os.environ[name] for name in queue if name in os.environ}


def _machine() -> list[Any]:
    """What process ids refer to: this boot of this machine, and this container of it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return [boot, os.stat("/proc/self/ns/pid").st_ino]
    except OSError:
        return [socket.gethostname()]


def _started(pid: int) -> str | None:
    """When a process began, in the kernel's count; None: there is no such process, or it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _is_alive(owner: dict[str, Any]) -> bool | None:
    """None: only time can tell."""
    if owner.get("machine") == _machine() and os.path.isdir("/proc/self"):
        return _started(owner["pid"]) == owner["started"]
    ours = _this_process()
    same_job = "SLURM_JOB_ID" in owner and owner["SLURM_JOB_ID"] == ours.get("SLURM_JOB_ID")
    earlier = int(owner.get("SLURM_RESTART_COUNT", 0)) < int(ours.get("SLURM_RESTART_COUNT", 0))
    return False if same_job and earlier else None  # the queue starts a job again once it has ended


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:  # cut off, or not ours
        return {}
    return found if isinstance(found, dict) else {}


def _name(owner: dict[str, Any]) -> str:
    if not owner:
        return "a process that did not say its name"
    slurm = f" (SLURM job {owner['SLURM_JOB_ID']})" if "SLURM_JOB_ID" in owner else ""
    return f"process {owner['pid']} on {owner['host']}{slurm}"
