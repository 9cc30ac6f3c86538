"""Annotation files that several data sets share: how they are opened and checked."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.utils.text import check_id, check_record, number, quoted, read_json, shown


def check_segment(start_s: float, end_s: float, where: str) -> None:
    """Refuse a segment that is reversed, begins before the video, or is no number; `where` names it in the
    message."""
    if not (0 <= start_s <= end_s and math.isfinite(end_s)):
        raise ValueError(
            f"{where} runs from {start_s} to {end_s} seconds; expected 0 <= start <= end. Correct or "
            "remove it."
        )


def read_database(
    path: str | Path, segments_key: str, impossible: bool = False, **fields: type
) -> dict[str, dict[str, Any]]:
    """Video -> entry of a JSON {"database": {video: {"subset", <segments_key>: [{"segment": [s, e], ...}]}}},
    segments checked.

    Args:
        path: the file.
        segments_key: annotation or annotations.
        impossible: segments may be reversed or not in the video, for whoever drops them.
        fields: what else a segment has, see `check_record`.

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
        check_record(entry, where, **{"subset": str, segments_key: list})
        if entry.get("duration") is not None:
            entry["duration"] = number(entry["duration"], f"{where}: duration")
        for index, clip in enumerate(entry[segments_key]):
            here = f"{path}: video {shown(repr(video))}: segment {index}"
            segment = check_record(clip, here, segment=list, **fields)["segment"]
            if len(segment) != 2:
                raise ValueError(f"{here}: expected [start, end], got {quoted(segment)}.")
            clip["segment"] = [number(time, here, finite=False) for time in segment]
            if not impossible:
                check_segment(clip["segment"][0], clip["segment"][1], here)
    return database


def span(start_s: float, end_s: float, seconds: int) -> slice:
    """The whole seconds that a segment touches, inside a video of `seconds` seconds."""
    return slice(max(0, int(np.floor(start_s))), min(seconds, int(np.ceil(end_s))))
