"""Pickles of plain data and arrays, read without running any code that a pickle may hold."""

from __future__ import annotations

import codecs
import collections
import pickle
import resource
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.utils.files import atomic_write

MEMORY, PER_BYTE = 1 << 28, 256  # bytes that reading may take: at all, and per byte of the file
CONVERT = "mmpt data plain"  # the command that makes plain data of it

# Containers that old pickle protocols name as classes. Everything else plain has its own opcode and never
# reaches find_class.
_PLAIN = {
    (module, name): kind
    for module in ("builtins", "__builtin__")
    for name, kind in (("set", set), ("frozenset", frozenset))
}


def _latin1(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes; other encodings are modules that would be imported."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding!r}")
    return codecs.encode(text, "latin1")


# What numpy writes for an array: rebuilding one runs nothing of the pickle's own.
_ARRAYS = {
    (f"numpy.{core}.{module}", name): getattr(getattr(np._core, module), name)
    for core in ("core", "_core")
    for module, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"))
} | {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype, ("_codecs", "encode"): _latin1}

# Containers that hold plain data, and become it.
_HARMLESS = {("collections", "OrderedDict"): dict, ("collections", "defaultdict"): lambda *args: {}} | {
    (module, name): lambda *args, name=name: name
    for module in ("builtins", "__builtin__")
    for name in ("list", "dict", "int", "str", "float")  # the default of a defaultdict
}


class UnsafePickle(pickle.UnpicklingError):
    """A pickle asks for a class or function."""


class _PlainUnpickler(pickle.Unpickler):
    def __init__(self, file, path: Path, known: Mapping[tuple[str, str], Any]):
        super().__init__(file)
        self._path = path
        self._known = known

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._known:
            return self._known[module, name]
        raise UnsafePickle(
            f"{self._path}: refused to load {module}.{name}; expected a pickle of plain dict, list, "
            "tuple, set, str, bytes, int, float, bool and None only, as other objects can run code. Where "
            f"you trust the file, make plain data of it: {CONVERT} {self._path.name} PLAIN.pkl --trust"
        )


def load_plain_pickle(path: str | Path) -> Any:
    """Read a pickle that holds nothing but plain Python data.

    Raises:
        UnsafePickle: it names a class or function; the message says which, and in which file.
        ValueError: the file is not a whole pickle, or asks for memory out of proportion to its size.
    """
    return _load(path, _PLAIN)


def load_array_pickle(path: str | Path) -> Any:
    """As `load_plain_pickle`, and numpy arrays beside the plain data."""
    return _load(path, _PLAIN | _ARRAYS)


def load_known_pickle(path: str | Path, known: Mapping[tuple[str, str], Any]) -> Any:
    """As `load_plain_pickle`, and the classes (module, name) beside the plain data."""
    return _load(path, {**_PLAIN, **known})


def convert_pickle(source: str | Path, target: str | Path, trusted: bool = False) -> list[str]:
    """Writes what a pickle holds as plain data, which `load_plain_pickle` reads.

    Dictionaries of any kind become dicts; arrays, numpy's numbers and tensors become lists and numbers; a
    DataFrame becomes a list of records, a Series a list.

    Args:
        source: the pickle.
        target: file to write.
        trusted: whether it may run code, as a pickle of other classes does; otherwise such a one is refused.

    Returns:
        The classes that were replaced, sorted.

    Raises:
        UnsafePickle: it asks for other classes, and is not trusted.
        ValueError: it cannot be read, or holds an object that is no data.
    """
    source = Path(source)
    if source.resolve() == Path(target).resolve():
        raise ValueError(f"{target} is the source itself; choose another file to write.")
    if trusted:
        with open(source, "rb") as file:
            found = _read(pickle.Unpickler(file), source)
    else:
        found = _load(source, _PLAIN | _ARRAYS | _HARMLESS)
    replaced: set[str] = set()
    save_plain_pickle(_plain(found, str(source), replaced), target)
    return sorted(replaced)


def _plain(value: Any, where: str, replaced: set[str]) -> Any:
    """The same in plain containers and numbers."""
    kind = type(value)
    if value is None or kind in (bool, int, float, str, bytes):
        return value
    if kind not in (dict, list, tuple, set, frozenset):
        replaced.add(f"{kind.__module__}.{kind.__qualname__}")
    if isinstance(value, Mapping):
        return {_plain(key, where, replaced): _plain(item, where, replaced) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset, collections.deque)):
        base = next((base for base in (tuple, set, frozenset) if isinstance(value, base)), list)
        return base(_plain(item, where, replaced) for item in value)
    kinds: tuple[type[Any], ...] = (bool, int, float, str, bytes)
    for plain in kinds:  # and what inherits from them
        if isinstance(value, plain):
            return plain(value)
    if kind.__module__.split(".")[0] == "pandas" and hasattr(value, "to_dict"):
        value = value.to_dict("records") if value.ndim == 2 else value.tolist()
        return _plain(value, where, replaced)
    if hasattr(value, "tolist"):  # arrays, numbers of numpy, tensors, indexes
        return _plain(value.tolist(), where, replaced)
    raise ValueError(
        f"{where}: holds a {kind.__module__}.{kind.__qualname__}, which is no data. Take the data out of it "
        "where that class is known."
    )


def _load(path: str | Path, known: Mapping[tuple[str, str], Any]) -> Any:
    path = Path(path)
    with open(path, "rb") as file, _memory(MEMORY + PER_BYTE * path.stat().st_size):
        found = _read(_PlainUnpickler(file, path, known), path)
        if file.read(1):
            raise ValueError(
                f"{path}: goes on behind the end of its pickle, at byte {file.tell() - 1}: several in one "
                "file, or a damaged one. Build the file again, with one pickle."
            )
        return found


def _read(unpickler: pickle.Unpickler, path: Path) -> Any:
    try:
        return unpickler.load()
    except UnsafePickle:
        raise
    except ImportError as error:
        raise ValueError(f"{path}: needs {error.name}, which is not installed, to be read.") from error
    except MemoryError as error:
        raise ValueError(
            f"{path}: asks for far more memory than its size can hold; it is damaged, or made to harm."
        ) from error
    except Exception as error:  # a damaged one may ask any object for anything
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise ValueError(f"{path}: not a whole pickle ({reason}). Fetch or build the file again.") from error


_one_limit = threading.Lock()  # the limit is the process's


@contextmanager
def _memory(more: int) -> Iterator[None]:
    """Memory that the block may take beyond what the process has: a few bytes of a pickle can ask for
    gigabytes."""
    with _one_limit:
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = _mapped() + more
        if soft != resource.RLIM_INFINITY:
            limit = min(limit, soft)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _mapped() -> int:
    """Bytes of address space that this process has."""
    pages = Path("/proc/self/statm").read_text().split()[0]
    return int(pages) * resource.getpagesize()


def save_plain_pickle(value: Any, path: str | Path) -> None:
    """Write `value` so that `load_plain_pickle` reads it; the file appears whole or not at all."""
    with atomic_write(path) as file:
        pickle.dump(value, file, protocol=4)
