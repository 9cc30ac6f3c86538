"""Templates to pages. A page carries its style and script within itself, and asks nothing of any other
machine: its content security policy forbids that to the browser, too."""

from __future__ import annotations

import base64
import functools
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from mmpt.utils import atomic_write, optional_import

HERE = Path(__file__).resolve().parent
IN_SCRIPTS = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def render(template: str, **values: Any) -> str:
    """The text of a page.

    Args:
        template: its name in `templates/`.
        values: what it shows. All text is escaped.
    """
    return _environment().get_template(template).render(**values)


def write(path: str | Path, template: str, **values: Any) -> Path:
    """Writes a page, whole or not at all. What is no UTF-8 in the name of a file is shown as `?`."""
    with atomic_write(path) as file:
        file.write(shown(render(template, **values)).encode())
    return Path(path)


@functools.cache
def _environment() -> Any:
    jinja2 = optional_import("jinja2", extra="pages")
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    markup = optional_import("markupsafe", extra="pages").Markup
    found.filters |= {"clock": clock, "data": lambda value: markup(script_data(value))}
    found.globals |= {"static": lambda name: markup(static(name))}
    return found


def static(name: str) -> str:
    """The style sheet or script of that name."""
    return (HERE / "static" / name).read_text(encoding="utf-8")


def script_data(value: Any) -> str:
    """JSON that may stand within `<script type="application/json">`, whatever texts it holds."""
    text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False)
    for letter, escape in IN_SCRIPTS.items():
        text = text.replace(letter, escape)
    return text


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(entry) for key, entry in value.items()}
    return [_finite(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def packed_bytes(values: np.ndarray) -> str:
    """Numbers in [0, 1] as base64 of one byte each."""
    scaled = np.clip(np.nan_to_num(np.asarray(values, np.float32)), 0, 1) * 255
    return base64.b64encode(np.rint(scaled).astype(np.uint8).tobytes()).decode()


def link(file: str | Path, folder: str | Path) -> str:
    """The address of a file on a page in `folder`, whatever its name holds."""
    return quote(os.fsencode(os.path.relpath(file, folder)))


def shown(name: str) -> str:
    """The name of a file as a page can show it: what is no UTF-8 in it becomes `?`."""
    return name.encode("utf-8", "replace").decode()


def clock(seconds: float) -> str:
    """75 -> "1:15", 3675 -> "1:01:15"."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
