"""Features of many files: reading in threads, the network on full batches across files, one `.npy` per file,
resumable.

Letters: n clips (seconds) of a file, D width of a feature.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmpt.media.video import Damage, MediaError, VideoError
from mmpt.utils import atomic_write
from mmpt.utils.text import check_id


@dataclass(frozen=True)
class Job:
    """One file to extract; its id names a file of features, so it is checked here."""

    video_id: str
    path: Path

    def __post_init__(self):
        check_id(self.video_id, str(self.path))


@dataclass
class Result:
    """What `extract` did, by video id; `damaged` says what of files that are done is not as recorded."""

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    damaged: dict[str, Damage] = field(default_factory=dict)


def extract(
    jobs: Sequence[Job],
    read: Callable[[Path, Damage], Iterator[np.ndarray]],
    encode: Callable[[Tensor], Tensor],
    out: str | Path,
    batch_size: int = 16,
    n_threads: int = 2,
    dtype: str = "float16",
    backwards: bool = False,
    on_file: Callable[[Job, int], None] = lambda job, clips: None,
    stop_on_damage: bool = False,
) -> Result:
    """Writes `<out>/<id>.npy` (n, D) for every job that has none yet.

    A file appears whole or not at all, so a run that was killed goes on where it stopped. Every batch has the
    same size, the last one filled up with zeros: features do not depend on which files share a batch, on the
    number of threads or processes, or on where a run stopped.

    Args:
        jobs: what to extract.
        read: path -> arrays of clips (<= n, ...), in order; fills in what is damaged. Whatever it raises is
            that file's failure.
        encode: (batch_size, ...) clips -> (batch_size, D).
        out: folder.
        batch_size: clips per call of `encode`, gathered across files.
        n_threads: files read at the same time.
        dtype: of the stored features.
        backwards: store the last clip first.
        on_file: called as each file ends, with its number of clips (0: skipped or failed).
        stop_on_damage: a damaged file ends the run.

    Returns:
        Ids done, skipped because their file exists, and failed with the reason.

    Raises:
        MediaError: with `stop_on_damage`, what is damaged.
    """
    result = Result()
    store = partial(_store, out=Path(out), dtype=dtype, backwards=backwards, result=result, on_file=on_file)
    todo = []
    for job in jobs:
        if (Path(out) / f"{job.video_id}.npy").exists():
            result.skipped.append(job.video_id)
            on_file(job, 0)
        else:
            todo.append(job)
    batcher = _Batcher(encode, batch_size)
    for job, item in _read_all(todo, read, n_threads):
        if isinstance(item, Damage):  # the file has ended
            if item and stop_on_damage:
                raise VideoError(f"{job.path}: damaged ({item}); on_damage: error ends the run.")
            if item:
                result.damaged[job.video_id] = item
            batcher.add(job, None)
        elif isinstance(item, Exception):
            batcher.drop(job)
            result.failed[job.video_id] = str(item)
            on_file(job, 0)
        else:
            batcher.add(job, item)
        for finished, features in batcher.finished():
            store(finished, features)
    batcher.flush()
    for finished, features in batcher.finished():
        store(finished, features)
    return result


class _Batcher:
    """Gathers clips of several files into full batches and hands features back by file."""

    def __init__(self, encode: Callable[[Tensor], Tensor], batch_size: int):
        self.encode, self.batch_size = encode, batch_size
        self.pending: list[tuple[Job, Tensor]] = []
        self.features: dict[Job, list[Tensor]] = {}
        self.ended: set[Job] = set()

    def add(self, job: Job, clips: np.ndarray | None) -> None:
        """More clips of a file; None: there are no more."""
        self.features.setdefault(job, [])
        if clips is None:
            self.ended.add(job)
            return
        self.pending.append((job, torch.from_numpy(clips)))
        while sum(len(clips) for _, clips in self.pending) >= self.batch_size:
            self._encode()

    def drop(self, job: Job) -> None:
        """Forgets a file that failed."""
        self.pending = [(owner, clips) for owner, clips in self.pending if owner != job]
        self.features.pop(job, None)

    def flush(self) -> None:
        while self.pending:
            self._encode()

    def finished(self) -> Iterator[tuple[Job, Tensor]]:
        """Files whose clips are all encoded."""
        waiting = {job for job, _ in self.pending}
        for job in [job for job in self.ended if job not in waiting]:
            self.ended.discard(job)
            yield job, torch.cat(self.features.pop(job))

    def _encode(self) -> None:
        room, batch, rest = self.batch_size, [], []
        for job, clips in self.pending:
            if room:
                batch.append((job, clips[:room]))
            if len(clips) > room:
                rest.append((job, clips[room:]))
            room -= min(room, len(clips))
        clips = [clips for _, clips in batch]
        if room:
            clips.append(clips[0].new_zeros(room, *clips[0].shape[1:]))
        features = self.encode(torch.cat(clips))
        for (job, _), encoded in zip(
            batch, features.split([len(part) for part in clips]), strict=False
        ):  # the zeros are no job's
            self.features[job].append(encoded)
        self.pending = rest


def _read_all(
    jobs: Sequence[Job], read: Callable[[Path, Damage], Iterator[np.ndarray]], n_threads: int
) -> Iterator[tuple[Job, Any]]:
    """Clips of all files, (job, array), then (job, its damage) or (job, error); read ahead by `n_threads`
    threads."""
    todo: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in jobs:
        todo.put(job)
    ready: queue.Queue = queue.Queue(maxsize=2 * n_threads)
    stop = threading.Event()

    def put(item: tuple[Job | None, Any]) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        while not stop.is_set():
            try:
                job = todo.get_nowait()
            except queue.Empty:
                return put((None, None))
            damage = Damage()
            try:
                for clips in read(job.path, damage):
                    put((job, clips))
                    if stop.is_set():
                        return None
                put((job, damage))
            except MediaError as error:
                put((job, error))
            except Exception as error:  # one odd file is one failure, whichever part of reading it stumbled
                found = f"{type(error).__name__}: {str(error)[:200]}"
                put((job, VideoError(f"{job.path}: cannot be read ({found}).")))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(n_threads)]
    for thread in threads:
        thread.start()
    running = n_threads
    try:
        while running:
            job, item = ready.get()
            if job is None:
                running -= 1
            else:
                yield job, item
    finally:
        stop.set()


def _store(
    job: Job,
    features: Tensor,
    out: Path,
    dtype: str,
    backwards: bool,
    result: Result,
    on_file: Callable[[Job, int], None],
) -> None:
    with np.errstate(over="ignore"):  # what overflows becomes infinite, and is reported as such
        # several maps of a clip follow each other
        rows = features.flatten(0, 1) if features.dim() == 5 else features
        array = rows.float().cpu().numpy().astype(dtype)
    if np.isfinite(array).all():
        with atomic_write(out / f"{job.video_id}.npy") as file:
            np.save(file, array[::-1] if backwards else array)
        result.done.append(job.video_id)
    else:
        result.failed[job.video_id] = f"{job.path}: features are not finite as {dtype}."
    on_file(job, len(array))
