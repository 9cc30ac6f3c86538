"""Annotation files that several data sets share: how they are opened and checked."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.utils.text import check_id, number, read_json, shown


def check_segment(start_s: float, end_s: float, where: str) -> None:
    """Refuse a segment that is reversed, begins before the video, or is no number; `where` names it in the
    message."""
    if not (0 <= start_s <= end_s and math.isfinite(end_s)):
        raise ValueError(
            f"{where} runs from {start_s} to {end_s} seconds; expected 0 <= start <= end. Correct or "
            "remove it."
        )


def read_database(path: str | Path, segments_key: str) -> dict[str, dict[str, Any]]:
    """Video -> entry of a JSON {"database": {video: {"subset", <segments_key>: [{"segment": [s, e], ...}]}}},
    segments checked.

    Raises:
        ValueError: the file is of another kind, or a segment is impossible.
    """
    database = read_json(path, dict, nan=True).get("database")
    if not isinstance(database, dict):
        raise ValueError(
            f'{path}: expected {{"database": {{video: {{"subset", "{segments_key}"}}}}}}; is this another '
            "data set's file?"
        )
    for video, entry in database.items():
        where = f"{path}: video {shown(video)}"
        check_id(video, str(path))
        if not isinstance(entry, dict) or not isinstance(entry.get("subset"), str):
            raise ValueError(f"{where}: expected an entry with a subset, got {shown(repr(entry))}.")
        if not isinstance(entry.get(segments_key), list):
            raise ValueError(
                f"{where}: expected a list under {segments_key}, got {shown(repr(entry.get(segments_key)))}; "
                "is this another data set's file?"
            )
        for index, clip in enumerate(entry[segments_key]):
            segment = clip.get("segment") if isinstance(clip, dict) else None
            if not isinstance(segment, list) or len(segment) != 2:
                raise ValueError(
                    f'{where}: segment {index}: expected {{"segment": [start, end], ...}}, got '
                    f"{shown(repr(clip))}."
                )
            clip["segment"] = [number(time, f"{where}: segment {index}", finite=False) for time in segment]
            check_segment(*clip["segment"], f"{path}: video {video!r}: segment {index}")
    return database


def span(start_s: float, end_s: float, seconds: int) -> slice:
    """The whole seconds that a segment touches, inside a video of `seconds` seconds."""
    return slice(max(0, int(np.floor(start_s))), min(seconds, int(np.ceil(end_s))))
