"""How commands speak: log lines, and errors without a stack of frames that are not the user's."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from pathlib import Path
from types import TracebackType

PACKAGE = Path(__file__).resolve().parent.parent
DELIBERATE = (ValueError, TypeError, KeyError, OSError, ImportError, RuntimeError, FloatingPointError)


def short_errors() -> None:
    """From now on an error that mmpt raises on purpose ends the command as one message; anything else keeps its traceback.

    `MMPT_TRACEBACK=1` shows the traceback of both.
    """
    if not os.environ.get("MMPT_TRACEBACK"):
        sys.excepthook = _show


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if _raised_by_mmpt(kind, trace):
        logging.getLogger("mmpt").debug("traceback", exc_info=(kind, error, trace))
        print(f"error: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def _raised_by_mmpt(kind: type[BaseException], trace: TracebackType | None) -> bool:
    """True where the innermost frame is a `raise` statement inside this package."""
    if not issubclass(kind, DELIBERATE) or trace is None:
        return False
    frame = traceback.extract_tb(trace)[-1]
    return PACKAGE in Path(frame.filename).resolve().parents and (frame.line or "").startswith("raise ")
