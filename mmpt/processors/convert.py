"""Publishers' annotation files -> what project files name.

A data set whose published files cannot be read as they are, or hold entries that no reader can use, has a
function `convert(source, out, *, ...)` in its file under `mmpt.processors.sets`; it returns a line that says
what was written and how much was dropped.
"""

from __future__ import annotations

import importlib
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mmpt.utils.files import atomic_write

SETS = Path(__file__).parent / "sets"


def converters() -> list[str]:
    """Data sets that can be converted; reads their files without importing them."""
    return sorted(path.stem for path in SETS.glob("*.py") if "\ndef convert(" in path.read_text("utf-8"))


def converter(name: str) -> Callable[..., str]:
    """The function of a data set, refusing to overwrite what it reads.

    Raises:
        ValueError: there is none.
    """
    if name not in converters():
        raise ValueError(f"no converter of {name!r}; there are {', '.join(converters())}.")
    return importlib.import_module(f"mmpt.processors.sets.{name}").convert


def convert(name: str, source: str | Path, out: str | Path, **options) -> str:
    """Convert the files of a data set; see its own `convert` for the options."""
    source, out = Path(source), Path(out)
    if source.resolve() == out.resolve():
        raise ValueError(f"{out} is the source itself; choose another file to write.")
    return converter(name)(source, out, **options)


def is_possible(segment: Sequence[float], dropped: Counter[str], duration: float | None = None) -> bool:
    """Whether a segment (start, end) can be in a video of `duration` seconds; else the reason is counted."""
    start, end = segment
    reasons = {
        "not a number": not (math.isfinite(start) and math.isfinite(end)),
        "reversed": start > end,
        "negative": start < 0,
        "behind the end of the video": bool(duration and start >= duration),
    }
    reason = next((reason for reason, applies in reasons.items() if applies), None)
    dropped.update([reason] if reason else [])
    return reason is None


def listed(counts: Mapping[str, int]) -> str:
    """`3 reversed, 1 empty`."""
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "none"


def write_json(path: Path, value: object) -> None:
    """One JSON value as a file that is whole or absent."""
    with atomic_write(path, "w") as file:
        json.dump(value, file)
