"""Search results as one HTML file: thumbnails inside, each moment plays from its own time where the video
file is reachable."""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np

from mmpt.inference.moments import Moment
from mmpt.media.video import VideoError, frame_at
from mmpt.utils import atomic_write, optional_import

THUMBNAIL_HEIGHT = 240
STYLE = """
body { font: 16px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; background: #fafafa; color: #222; }
h1 { font-size: 1.1rem; font-weight: 400; color: #666; } h2 { font-size: 1.4rem; margin: 2rem 0 .8rem; }
ol { list-style: none; margin: 0; padding: 0; display: grid; grid-template-columns: repeat(auto-fill, minmax(16rem, 1fr)); gap: 1rem; }
li { position: relative; background: #fff; border: 1px solid #ddd; border-radius: .5rem; overflow: hidden; }
video, .none { display: block; width: 100%; aspect-ratio: 16 / 9; background: #222; color: #aaa; object-fit: contain; }
.none { display: flex; align-items: center; justify-content: center; }
.play { position: absolute; top: .5rem; left: .5rem; padding: .1rem .5rem; border-radius: .3rem; background: #000a; color: #fff; }
.play { pointer-events: none; } video[controls] + .play { display: none; }
p { margin: .5rem .8rem; } .score { float: right; color: #555; }
.id { overflow-wrap: anywhere; overflow: hidden; display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2; }
.id, .id a { color: #555; font-size: .9rem; }
"""


def write_page(path: str | Path, found: Mapping[str, Sequence[Moment]], files: Mapping[str, str]) -> None:
    """Writes the page.

    Args:
        path: where.
        found: sentence -> its moments, best first.
        files: video id -> video file; a moment without one has no thumbnail.
    """
    folder = Path(path).resolve().parent
    sections = ""
    for sentence, moments in found.items():
        cards = "".join(
            _card(rank, moment, files.get(moment.video_id), folder)
            for rank, moment in enumerate(moments, start=1)
        )
        sections += f"<h2>{html.escape(sentence)}</h2>\n<ol>\n{cards}</ol>\n"
    title = html.escape(", ".join(found))
    with atomic_write(path, "w") as file:
        file.write(
            f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
            '<meta name="viewport" '
            f'content="width=device-width"><title>{title}</title><style>{STYLE}</style></head>\n'
            "<body>\n<h1>Moments that fit best, first the best; point at one to play "
            f"it</h1>\n{sections}</body>\n</html>\n"
        )


def clock(seconds: float) -> str:
    """75 -> "1:15", 3675 -> "1:01:15"."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def jpeg(image: np.ndarray) -> bytes:
    """(H, W, 3) uint8 RGB -> a JPEG file."""
    av = optional_import("av", extra="video")
    codec = av.CodecContext.create("mjpeg", "w")
    codec.height, codec.width, codec.pix_fmt, codec.framerate = *image.shape[:2], "yuvj420p", 1
    frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuvj420p")
    return b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])


def _card(rank: int, moment: Moment, file: str | None, folder: Path) -> str:
    view, name = '<div class="none">no video file</div>', html.escape(moment.video_id)
    if file is not None:
        try:
            picture = frame_at(file, (moment.start_s + moment.end_s) / 2, THUMBNAIL_HEIGHT)
        except VideoError:
            view = '<div class="none">video file not readable</div>'
        else:
            source = f"{quote(os.path.relpath(file, folder))}#t={moment.start_s:g},{moment.end_s:g}"
            view, name = _player(picture, source), f'<a href="{source}">{name}</a>'
    times = f"{clock(moment.start_s)} &ndash; {clock(moment.end_s)}"
    score = f'<span class="score">{moment.score:.3f}</span>'
    return (
        f'<li>{view}<p><b>{rank}.</b> {times} {score}</p><p class="id" '
        f'title="{html.escape(moment.video_id)}">{name}</p></li>\n'
    )


def _player(picture: np.ndarray, source: str) -> str:
    """A thumbnail that becomes a player, whose controls would hide it, where it is pointed at."""
    poster = base64.b64encode(jpeg(picture)).decode()
    events = (
        'onmouseenter="this.controls=true" onfocus="this.controls=true" '
        'onmouseleave="this.controls=!this.paused"'
    )
    video = (
        f'<video tabindex="0" {events} preload="none" poster="data:image/jpeg;base64,{poster}" '
        f'src="{source}"></video>'
    )
    return f'{video}<span class="play">&#9654;</span>'
