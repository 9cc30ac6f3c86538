"""Packages that only some features need."""

from __future__ import annotations

import importlib
import re
from types import ModuleType


def optional_import(module: str, extra: str) -> ModuleType:
    """Import `module`, or say which extra of this package brings it.

    Args:
        module: dotted module name ("transformers").
        extra: name of the pip extra that lists it ("text").

    Raises:
        ImportError: the module is not installed, or cannot be loaded; the message says why.
    """
    package = module.split(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        there = f"{package!r} is installed, but " if missing.split(".")[0] != package else ""
        raise ImportError(
            f"{there}this needs the package {missing!r}, which is not there. Install it: pip install "
            f"'mmpt[{extra}]'"
        ) from error
    except (ImportError, OSError, RuntimeError) as error:  # a compiled part that does not fit this machine
        raise ImportError(
            f"{package!r} is installed, but cannot be loaded here: {_reason(error)}. Or do without it."
        ) from error


def _reason(error: Exception) -> str:
    """Which system libraries are missing, where a long message names them; otherwise its first line."""
    if libraries := sorted(set(re.findall(r"(\S+): cannot open shared object file", str(error)))):
        return f"system libraries not found: {', '.join(libraries)}"
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
