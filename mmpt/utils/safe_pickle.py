"""Pickles of plain data and arrays, read without running any code that a pickle may hold."""

from __future__ import annotations

import codecs
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.utils.files import atomic_write

# Containers that old pickle protocols name as classes. Everything else plain has its own opcode and never
# reaches find_class.
_PLAIN = {
    (module, name): kind
    for module in ("builtins", "__builtin__")
    for name, kind in (("set", set), ("frozenset", frozenset))
}


# What numpy writes for an array: rebuilding one runs nothing of the pickle's own.
_ARRAYS = {
    (f"numpy.{core}.{module}", name): getattr(getattr(np._core, module), name)
    for core in ("core", "_core")
    for module, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"))
} | {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype, ("_codecs", "encode"): codecs.encode}


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
            "tuple, set, str, bytes, int, float, "
            "bool and None only, as other objects can run code. Convert the file to plain data where you "
            "trust it."
        )


def load_plain_pickle(path: str | Path) -> Any:
    """Read a pickle that holds nothing but plain Python data.

    Raises:
        UnsafePickle: it names a class or function; the message says which, and in which file.
        ValueError: the file is not a whole pickle.
    """
    return _load(path, _PLAIN)


def load_array_pickle(path: str | Path) -> Any:
    """As `load_plain_pickle`, and numpy arrays beside the plain data."""
    return _load(path, _PLAIN | _ARRAYS)


def _load(path: str | Path, known: Mapping[tuple[str, str], Any]) -> Any:
    path = Path(path)
    with open(path, "rb") as file:
        try:
            return _PlainUnpickler(file, path, known).load()
        except UnsafePickle:
            raise
        except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{path}: not a whole pickle ({error}). Fetch or build the file again."
            ) from error


def save_plain_pickle(value: Any, path: str | Path) -> None:
    """Write `value` so that `load_plain_pickle` reads it; the file appears whole or not at all."""
    with atomic_write(path) as file:
        pickle.dump(value, file, protocol=4)
