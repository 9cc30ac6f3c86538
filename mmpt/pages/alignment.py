"""The alignment of a video as a page: its sentences on a time line, the transport plan as a heat map that
runs with the video, the truth where it is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.inference.align import METHODS, VideoAlignment
from mmpt.media.video import VideoError
from mmpt.pages.pictures import inline, thumbnail
from mmpt.pages.render import link, packed_bytes, write

LABELS = {"dtw": "DTW", "otam": "OTAM", "calibrated": "calibrated", "plan": "plan"}


def write_alignment(
    path: str | Path,
    video: VideoAlignment,
    file: str | None = None,
    home: str | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Writes the page.

    Args:
        path: where.
        video: what it shows.
        file: the video file; None: the page runs without picture.
        home: address of the page that leads here.
        notes: what its reader should know.
    """
    poster, source = None, None
    if file is not None:
        source = link(file, Path(path).resolve().parent)
        try:
            poster = inline(thumbnail(file, 0.0))
        except VideoError as error:
            notes = [*notes, str(error)]
    about = f"{len(video.captions)} sentences, {len(video.windows)} windows"
    about += "".join(
        f", {name}: {value}"
        for name, value in video.about.items()
        if name in ("model", "captions", "calibration")
    )
    values = {"about": about, "notes": list(notes), "home": home, "source": source, "poster": poster}
    return write(path, "alignment.html", title=video.video_id, **values, **facts(video))


def facts(video: VideoAlignment) -> dict[str, Any]:
    """What a page says of the alignment itself."""
    return {
        "data": view_data(video),
        "methods": {name: METHODS[name] for name in video.spans},
        "labels": LABELS,
        "length_s": video.length_s,
        "has_truth": video.truth is not None,
    }


def view_data(video: VideoAlignment) -> dict[str, Any]:
    """What the script of the page reads; the plan is a byte per cell, the most of each caption 255."""
    plan = video.plan / np.maximum(video.plan.max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    captions = []
    for index, text in enumerate(video.captions):
        caption = {
            "text": text,
            "said": video.said[index] if video.said else None,
            "spans": {name: spans[index] for name, spans in video.spans.items()},
            "mass": {name: mass[index] for name, mass in video.mass.items()},
            "visible": None,
        }
        if video.truth is not None:
            caption["truth"] = video.truth[index]
        captions.append(caption)
    return {
        "captions": captions,
        "windows": np.round(video.windows.astype(np.float64), 3).tolist(),
        "length": video.length_s,
        "plan": packed_bytes(plan),
        "methods": {name: METHODS[name] for name in video.spans},
        "method": "calibrated" if "calibrated" in video.spans else "dtw",
    }
