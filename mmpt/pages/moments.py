"""Search results as one HTML file: thumbnails inside, each moment plays from its own time where the video
file is reachable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpt.inference.moments import Moment
from mmpt.media.video import VideoError
from mmpt.pages.pictures import inline, thumbnail
from mmpt.pages.render import link, write


def write_page(path: str | Path, found: Mapping[str, Sequence[Moment]], files: Mapping[str, str]) -> None:
    """Writes the page.

    Args:
        path: where.
        found: sentence -> its moments, best first.
        files: video id -> video file; a moment without one has no thumbnail.
    """
    folder = Path(path).resolve().parent
    sections = {
        sentence: [_card(moment, files.get(moment.video_id), folder) for moment in moments]
        for sentence, moments in found.items()
    }
    write(path, "moments.html", title=", ".join(found), sections=sections)


def _card(moment: Moment, file: str | None, folder: Path) -> dict[str, Any]:
    card = {"moment": moment, "poster": None, "source": None, "reason": "no video file"}
    if file is None:
        return card
    try:
        card["poster"] = inline(thumbnail(file, (moment.start_s + moment.end_s) / 2))
    except VideoError:
        return card | {"reason": "video file not readable"}
    return card | {"source": f"{link(file, folder)}#t={moment.start_s:g},{moment.end_s:g}"}
