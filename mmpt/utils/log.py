"""How commands speak: log lines, and errors without a stack of frames that are not the user's."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = (ROOT / "mmpt", ROOT / "mmpt_cli")


def short_errors() -> None:
    """From now on an error that mmpt raises on purpose ends the command as one message; anything else keeps
    its traceback.

    `MMPT_TRACEBACK=1` shows the traceback of both.
    """
    if not os.environ.get("MMPT_TRACEBACK"):
        sys.excepthook = _show


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, Exception) and _raised_by_mmpt(trace):
        logging.getLogger("mmpt").debug("traceback", exc_info=(kind, error, trace))
        sys.stderr.write(f"error: {error}\n")
    elif isinstance(error, FileNotFoundError) and error.filename is not None:  # a file that the user names
        logging.getLogger("mmpt").debug("traceback", exc_info=(kind, error, trace))
        sys.stderr.write(f"error: {error.filename}: no such file or folder (looked for in {os.getcwd()})\n")
    else:
        sys.__excepthook__(kind, error, trace)


def _raised_by_mmpt(trace: TracebackType | None) -> bool:
    """True where the innermost frame is a `raise` statement inside this package or its commands."""
    if trace is None:
        return False
    frame = traceback.extract_tb(trace)[-1]
    return not set(PACKAGES).isdisjoint(Path(frame.filename).resolve().parents) and (
        frame.line or ""
    ).startswith("raise ")
