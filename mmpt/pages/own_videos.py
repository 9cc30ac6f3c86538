"""A folder of videos that was aligned, as pages: a list, and one page a video."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mmpt.inference.align import VideoAlignment
from mmpt.inference.own_videos import Made
from mmpt.pages.alignment import write_alignment
from mmpt.pages.render import link, write
from mmpt.utils.files import atomic_write
from mmpt.utils.text import read_json

PAGES, DONE = "pages", ".made.json"
EACH = 500  # pages after which what is done is written down, for a call that is killed


def write_pages(made: Made, track: Callable[[Iterable], Iterable] = iter) -> Path:
    """Writes `index.html` and `pages/<id>.html`; pages of alignments that have not changed stay.

    Args:
        made: what was made.
        track: wrapped round the ids.

    Returns:
        The page to open.
    """
    folder = made.out / PAGES
    done = _read(folder / DONE)
    rows: list[dict[str, Any]] = []
    for name in track(made.aligned):
        stored = made.out / "alignments" / f"{name}.json"
        notes, file, page = made.warnings.get(name, []), made.files.get(name), folder / f"{name}.html"
        state = [stored.stat().st_mtime_ns, stored.stat().st_size, file, notes]
        known = done.get(name, {})
        if not (page.is_file() and known.get("state") == state):
            video = VideoAlignment.load(made.out / "alignments" / name)
            write_alignment(page, video, file, "../index.html", notes)
            known = {"state": state, "length_s": video.length_s, "sentences": len(video.captions)}
        done[name] = known
        rows.append({"id": name, "page": link(page, made.out), "notes": notes, **known})
        if len(rows) % EACH == 0:
            _write(folder / DONE, done)
    _write(folder / DONE, {name: done[name] for name in made.aligned})
    return write(
        made.out / "index.html",
        "own_videos.html",
        title=f"{len(rows)} aligned videos",
        rows=rows,
        left_out=made.left_out,
        about=made.about,
        out=str(made.out),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json(path, dict, nan=True, empty=True) if path.is_file() else {}
    except ValueError:  # cut by a kill: the pages are written again
        return {}


def _write(path: Path, tree: dict[str, Any]) -> None:
    with atomic_write(path, "w") as file:
        json.dump(tree, file)
