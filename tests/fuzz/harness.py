"""Mutated files against a reader, in a forked child with an alarm and a memory limit.

| outcome | |
|---|---|
| same | the value is that of the whole file |
| clean | an error that the package raised on purpose, in a few lines |
| warned | another value, and a warning in the log |
| silent | another value, and nothing said: right where no checksum and no rule can see the change |
| traceback, hang, memory, crash | faults |
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import pickle
import random
import resource
import signal
import struct
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FAULTS = ("traceback", "hang", "memory", "crash")
OUTCOMES = ("same", "clean", "warned", "silent", *FAULTS)
SECONDS, MEMORY = 15, 2 << 30
STRAY = (b'"', b"\n", b"\xef\xbb\xbf", b",", b"\xe4", b"\x00", b"{", b"[" * 50, b"../", b"-", b"'", b"&a ")
NUMBERS = (b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"-1", b"1e99", b"NaN", b"null", b"1_0", b"9" * 30)


class Found(Exception):
    """A checker reported the damage."""


@dataclasses.dataclass(frozen=True)
class Reader:
    """One kind of file.

    Attributes:
        name: of the kind.
        make: writes a whole file, and what stands round it, into a folder; returns the file to damage.
        read: reads it; the value is compared.
        sealed: a checksum stands over it, so that no change may pass in silence.
        slow: takes tens of milliseconds a case.
    """

    name: str
    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    sealed: bool = False
    slow: bool = False


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One to four edits: bit flips, cuts, repeats, swaps, zeros, odd numbers, stray characters."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if not out:
            break
        at = rng.randrange(len(out))
        kind = rng.randrange(8)
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del out[at:]
        elif kind == 2:
            del out[at : at + rng.randint(1, 16)]
        elif kind == 3:
            out[at:at] = out[at : at + rng.randint(1, 32)]
        elif kind == 4:
            out[at : at + 4] = bytes(4)
        elif kind == 5:
            number = rng.choice(NUMBERS)
            out[at : at + len(number)] = number
        elif kind == 6:
            out[at:at] = rng.choice(STRAY)
        else:
            other, length = rng.randrange(len(out)), rng.randint(1, 16)
            out[at : at + length], out[other : other + length] = (
                out[other : other + length],
                out[at : at + length],
            )
    return bytes(out)


def digest(value: Any) -> str:
    """Hash of nested arrays, tensors, dataclasses, dicts, lists and plain values."""
    h = hashlib.sha256()

    def go(v: Any) -> None:
        if hasattr(v, "detach"):
            v = v.detach().cpu().numpy()
        if hasattr(v, "tobytes"):
            h.update(f"{v.dtype}{v.shape}".encode() + v.tobytes())
        elif dataclasses.is_dataclass(v):
            go(vars(v))
        elif isinstance(v, dict):
            for key in v:
                go(key)
                go(v[key])
        elif isinstance(v, (list, tuple)):
            h.update(f"L{len(v)}".encode())
            for item in v:
                go(item)
        else:
            h.update(repr(v).encode("utf8", "surrogatepass"))

    go(value)
    return h.hexdigest()


def campaign(reader: Reader, folder: Path, n: int, seed: int = 0) -> tuple[Counter, dict[str, str]]:
    """Counts of outcomes over `n` mutations, and an example of each fault and of silence."""
    path = reader.make(folder)
    base = path.read_bytes()
    outcomes: list[tuple[str, str]] = []
    right = digest(reader.read(path))
    while len(outcomes) < n:  # a child goes on until a case ends it
        outcomes += _in_child(reader, path, base, right, range(len(outcomes), n), seed)
    path.write_bytes(base)
    examples: dict[str, str] = {}
    for case, (outcome, detail) in enumerate(outcomes):
        if outcome in (*FAULTS, "silent"):
            examples.setdefault(outcome, f"case {case}: {detail}")
    return Counter(outcome for outcome, _ in outcomes), examples


def _in_child(
    reader: Reader, path: Path, base: bytes, right: str, cases: range, seed: int
) -> Iterator[tuple[str, str]]:
    output, into = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(output)
        try:
            _limit()
            for case in cases:
                signal.alarm(SECONDS)
                path.write_bytes(mutate(base, random.Random(f"{seed} {case}")))
                os.utime(path, ns=(case, case))  # readers remember files by their time
                found = pickle.dumps(_outcome(reader, path, right))
                os.write(into, struct.pack("<I", len(found)) + found)
        finally:
            os._exit(0)
    os.close(into)
    n_done = 0
    with os.fdopen(output, "rb") as pipe:
        while head := pipe.read(4):
            yield pickle.loads(pipe.read(*struct.unpack("<I", head)))
            n_done += 1
    _, status = os.waitpid(child, 0)
    if n_done < len(cases):
        hung = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM
        yield ("hang" if hung else "crash", f"status {status}")


def _limit() -> None:
    import torch

    torch.set_num_threads(1)  # threads of a pool do not survive a fork
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 2)  # decoders speak of damage there


def _outcome(reader: Reader, path: Path, right: str) -> tuple[str, str]:
    said: list[logging.LogRecord] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = said.append
    logging.getLogger().addHandler(handler)
    try:
        found = digest(reader.read(path))
    except Found as error:
        return "clean", str(error)
    except MemoryError:
        return "memory", ""
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        on_purpose = "/mmpt/" in last.filename and (last.line or "").startswith("raise")
        is_short = str(error).count("\n") < 8 and len(str(error)) < 2000
        kind = "clean" if on_purpose and is_short else "traceback"
        return kind, f"{type(error).__name__}: {str(error)[:300]} ({last.filename}:{last.lineno})"
    finally:
        logging.getLogger().removeHandler(handler)
    return ("same" if found == right else "warned" if said else "silent"), ""
