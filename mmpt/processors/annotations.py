"""Annotation files that several data sets share: how they are opened and checked."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np


def read_ids(path: str | Path) -> list[str]:
    """The ids of a list file, one per line; blank lines are skipped.

    Raises:
        ValueError: no id in it.
    """
    with open(path, encoding="utf-8") as file:
        ids = [line.strip() for line in file if line.strip()]
    if not ids:
        raise ValueError(f"{path}: the list holds no video id; expected one per line.")
    return ids


def read_table(path: str | Path, columns: tuple[str, ...], delimiter: str = ",") -> list[dict[str, str]]:
    """Rows of a csv file with a header.

    Raises:
        ValueError: a column is absent, or there is no row.
    """
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, delimiter=delimiter)
        absent = [column for column in columns if column not in (reader.fieldnames or ())]
        if absent:
            raise ValueError(f"{path}: no column {', '.join(absent)}; its header is {reader.fieldnames}.")
        rows = list(reader)
    if not rows:
        raise ValueError(f"{path}: the table holds no row.")
    return rows


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
    database = read_json(path, dict).get("database")
    if not isinstance(database, dict) or not all(
        "subset" in entry and segments_key in entry for entry in database.values()
    ):
        raise ValueError(
            f'{path}: expected {{"database": {{video: {{"subset", "{segments_key}"}}}}}}; is this another '
            "data set's file?"
        )
    for video, entry in database.items():
        for index, clip in enumerate(entry[segments_key]):
            check_segment(*clip["segment"], f"{path}: video {video!r}: segment {index}")
    return database


def read_json(path: str | Path, kind: type) -> Any:
    """A JSON file whose outermost value is a `kind` (dict or list).

    Raises:
        ValueError: it is not JSON, or something else.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path}: not a JSON file ({error}); is this the file of another data set?"
        ) from error
    if not isinstance(value, kind) or not value:
        raise ValueError(
            f"{path}: expected a non-empty JSON {kind.__name__}, got {type(value).__name__}; is this "
            "another data set's file?"
        )
    return value


def span(start_s: float, end_s: float, seconds: int) -> slice:
    """The whole seconds that a segment touches, inside a video of `seconds` seconds."""
    return slice(max(0, int(np.floor(start_s))), min(seconds, int(np.ceil(end_s))))
