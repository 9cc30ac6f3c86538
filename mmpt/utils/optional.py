"""Packages that only some features need."""

from __future__ import annotations

import importlib
from types import ModuleType


def optional_import(module: str, extra: str) -> ModuleType:
    """Import `module`, or say which extra of this package brings it.

    Args:
        module: dotted module name ("transformers").
        extra: name of the pip extra that lists it ("text").

    Raises:
        ImportError: the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or module.split(".")[0] != error.name.split(".")[0]:
            raise  # the module is there, something it needs is not: its own message says more
        raise ImportError(
            f"this needs the package {error.name!r}, which is not installed. Install it with: pip install 'mmpt[{extra}]'"
        ) from error
