"""A job that stands still ends: every rank says what it is doing, the launcher of its machine listens.

A rank writes a small file every few seconds, from a thread: its phase, its update, and for how long it has
been there. The launcher reads the files of all ranks. A rank that is frozen does not write; one that hangs
writes that it is where it was. Whoever is late, the launcher names the rank that stopped, and ends its
processes with exit code 86. Time during which the listener itself was suspended does not count.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

STOOD = 86  # exit code of a job that stood still; the same command goes on from its last checkpoint
FOLDER = "MMPT_HEARTBEAT"  # environment: where ranks write; unset: nobody listens, and a rank watches itself
TIMEOUT_S, START_TIMEOUT_S = 600.0, 1800.0  # defaults of job.timeout and job.start_timeout
START, TRAINING, DATA, FORWARD = "start-up", "training", "data", "forward"
COLLECTIVE, SAVE, VALIDATION, ENDED = "collective", "save", "validation", "ended"
MOST_INTERVAL_S = 5.0


@dataclass
class Beat:
    """What a rank said last.

    Attributes:
        rank: its number.
        host: its machine.
        pid: its process id there; 0: it has not said anything.
        phase: what it does.
        update: the last update it completed.
        standing_s: for how long it has been doing that.
        limit_s: after how long that is too long.
        interval_s: between two beats.
        silent_s: since its last word, as the listener counts.
    """

    rank: int
    host: str = ""
    pid: int = 0
    phase: str = START
    update: int = 0
    standing_s: float = 0.0
    limit_s: float = START_TIMEOUT_S
    interval_s: float = MOST_INTERVAL_S
    silent_s: float = 0.0


class Heart:
    """What this process is doing; times what it waits for."""

    def __init__(self) -> None:
        self.rank, self.update, self.phase = 0, 0, START
        self.timeout_s, self.start_timeout_s, self.slow = TIMEOUT_S, START_TIMEOUT_S, True
        self.since = time.monotonic()
        self.spent = {DATA: 0.0, COLLECTIVE: 0.0}  # seconds
        self._ended, self._woken = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def during(self, phase: str, slow: bool | None = None) -> Iterator[None]:
        """A phase; what it interrupted goes on after it.

        Args:
            phase: its name.
            slow: whether `job.start_timeout` is its limit; None: as before.
        """
        before, was_slow, begin = self.phase, self.slow, time.monotonic()
        self.phase, self.since = phase, begin
        self.slow = was_slow if slow is None else slow
        try:
            yield
        finally:
            self.phase, self.slow, self.since = before, was_slow, time.monotonic()
            if phase in self.spent and before != phase:
                self.spent[phase] += self.since - begin

    def train(self) -> None:
        """Start-up is over."""
        if self.slow and self.phase == START:
            self.phase, self.slow, self.since = TRAINING, False, time.monotonic()
            self._woken.set()

    def progress(self) -> None:
        """The present phase moves on."""
        self.since = time.monotonic()

    def take_spent(self, phase: str) -> float:
        """Seconds spent in a phase since the last call."""
        seconds, self.spent[phase] = self.spent[phase], 0.0
        return seconds

    @property
    def limit_s(self) -> float:
        """For how long the present phase may last."""
        return self.start_timeout_s if self.slow else self.timeout_s

    def start(self, rank: int, folder: str | None, alone: Callable[[Beat], None]) -> None:
        """Begin to beat.

        Args:
            rank: of this process.
            folder: where the launcher listens; None: nobody does.
            alone: called once this process stands still and nobody listens.
        """
        self.rank, self.since = rank, time.monotonic()
        work = lambda: self._beat(Path(folder) if folder else None, alone)  # noqa: E731
        self._thread = threading.Thread(target=work, name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """The last beat."""
        if self._thread is not None:
            self.phase = ENDED
            self._ended.set()
            self._woken.set()
            self._thread.join(MOST_INTERVAL_S)

    def _beat(self, folder: Path | None, alone: Callable[[Beat], None]) -> None:
        standing, seen, last = 0.0, self.since, time.monotonic()
        while True:
            ended = self._ended.is_set()
            limit = self.limit_s
            interval = min(MOST_INTERVAL_S, limit / 20 or MOST_INTERVAL_S)
            now, since = time.monotonic(), self.since
            # a process that was suspended finds much time gone in which nobody could have done anything
            standing = standing + min(now - last, 2 * interval) if since == seen else 0.0
            seen, last = since, now
            beat = Beat(
                self.rank,
                socket.gethostname(),
                os.getpid(),
                self.phase,
                self.update,
                standing,
                limit,
                interval,
            )
            if folder is not None:
                _write(folder / f"rank{self.rank}", {**vars(beat), "now": now})
            elif 0 < limit <= standing:
                alone(beat)
            if ended:
                return
            self._woken.wait(interval)
            self._woken.clear()


HEART = Heart()


class Watch:
    """Listens to all ranks from a thread.

    Args:
        folder: where they write.
        ranks: how many there are.
        stands: called once with what stands still, in words.
    """

    def __init__(self, folder: Path, ranks: int, stands: Callable[[str], None]):
        self.folder, self.stands = folder, stands
        self.beats = [Beat(rank) for rank in range(ranks)]
        self._texts = [_text(folder / f"rank{rank}") for rank in range(ranks)]  # of earlier starts
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="heartbeats", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()

    def _listen(self) -> None:
        last, interval = time.monotonic(), 1.0
        while not self._ended.wait(interval):
            now = time.monotonic()
            self.hear(min(now - last, 2 * interval + 1))
            last, interval = now, min(beat.interval_s for beat in self.beats) / 2
            found = judge(self.beats)
            if found:
                self.stands(found)
                return

    def hear(self, passed_s: float) -> None:
        """Read what the ranks say, `passed_s` seconds after the last time."""
        for rank, beat in enumerate(self.beats):
            text = _text(self.folder / f"rank{rank}")
            beat.silent_s += passed_s
            if text and text != self._texts[rank]:
                said = json.loads(text)
                self.beats[rank] = Beat(**{field.name: said[field.name] for field in fields(Beat)})
                self._texts[rank] = text


def judge(beats: Sequence[Beat]) -> str | None:
    """The rank that keeps the job from going on, in words; None while nobody is late."""
    live = [beat for beat in beats if beat.phase != ENDED]
    if not live or min(beat.limit_s for beat in live) <= 0:
        return None
    # ranks wait for the one with most to do; one that is silent may have got further than it said
    heard = [beat for beat in live if beat.silent_s < 6 * beat.interval_s]
    limit = max(beat.limit_s for beat in heard or live)
    # where only the words get lost (a folder that machines do not share, a full disk) somebody gets on
    if not (any(beat.standing_s >= limit for beat in heard) or min(beat.silent_s for beat in live) >= limit):
        return None
    silent = [beat for beat in live if beat.silent_s >= limit / 2]
    busy = [beat for beat in live if beat.phase != COLLECTIVE and beat.standing_s >= limit / 2]
    if silent:
        found = _sentence(max(silent, key=lambda beat: beat.silent_s))
    elif busy:
        found = _sentence(min(busy, key=lambda beat: (beat.update, -beat.standing_s)))
    else:
        since = _clock(min(beat.standing_s for beat in live))
        hosts = ", ".join(dict.fromkeys(beat.host for beat in live))
        updates = sorted({beat.update for beat in live})
        found = (
            f"all {len(live)} ranks stand still since {since} in phase {COLLECTIVE}, after update "
            f"{'/'.join(map(str, updates))}: they wait for each other; is the network down ({hosts})?"
        )
    return f"{found} Ended after {limit:.0f} s without progress (job.timeout, job.start_timeout)."


def _sentence(beat: Beat) -> str:
    if not beat.pid:
        return f"rank {beat.rank} has not said a word in {beat.silent_s:.0f} s, since it was started."
    since = _clock(max(beat.silent_s, beat.standing_s))
    text = (
        f"rank {beat.rank} on {beat.host} (process {beat.pid}) stands still since {since} in phase "
        f"{beat.phase}, after update {beat.update}"
    )
    return f"{text}: {_state(beat)}." if beat.silent_s > 3 * beat.interval_s else f"{text}."


def _state(beat: Beat) -> str:
    """Why a process is silent."""
    if beat.host != socket.gethostname():
        return "no sign of life from there; is that machine, or the network to it, down"
    try:
        state = Path(f"/proc/{beat.pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "the process is gone"
    known = {"T": "it is stopped by a signal", "D": "it waits for a disk or a file server"}
    return known.get(state, "the process gives no sign of life")


def _clock(seconds_ago: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() - seconds_ago))


def _write(path: Path, said: dict) -> None:
    """Whole or not at all."""
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        beside.write_text(json.dumps(said))
        os.replace(beside, path)
    except OSError:  # what listens hears nothing and judges by that
        return


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
