"""What features say about themselves: `passport.json` beside single files, an entry of shards' manifest.

{"backbone": "s3d", "frames_per_second": 30, "seconds_per_feature": 1.0, "normalised": true}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpt.utils.shardedtensor import read_manifest
from mmpt.utils.text import number, read_json

PASSPORT = "passport.json"
DAMAGED = "damaged_s"  # in it: seconds of footage that were concealed or missing, over all files


def read_passport(features: str | Path) -> dict[str, Any]:
    """What the extractor says the features of a folder are; empty where it wrote nothing."""
    path = Path(features) / PASSPORT
    found = read_json(path, dict) if path.is_file() else {}
    return {key: value for key, value in found.items() if key != DAMAGED}


def damaged_seconds(features: str | Path) -> float:
    """Seconds of the footage of a folder's features that were concealed or missing."""
    path = Path(features) / PASSPORT
    found = read_json(path, dict) if path.is_file() else {}
    return number(found.get(DAMAGED, 0), f"{path}: {DAMAGED}")


def passports_of(features: str | Path) -> list[dict[str, Any]]:
    """The different passports of a folder: of its shards of features, else the one of its single files; an
    empty one where nothing is said."""
    manifest = {name: entry for name, entry in read_manifest(features).items() if "." not in name}
    shards = [entry.get("passport") or {} for entry in manifest.values()]  # token shards' names hold a dot
    found = shards or [read_passport(features)]
    return list({str(sorted(passport.items())): passport for passport in found}.values())


def seconds_per_row(shard: str | Path) -> float:
    """Seconds behind each row of a shard of features, by its passport; 1 where nothing is said.

    Raises:
        ValueError: the passport says something that is no time.
    """
    path = Path(shard)
    passport = read_manifest(path.parent).get(path.name, {}).get("passport") or {}
    return number(passport.get("seconds_per_feature", 1.0), f"{path}: passport")


def rates_of(folder: str | Path, passports: Sequence[Mapping[str, Any]]) -> list[float]:
    """Rows per second by the passports of a folder, each once; 1 where nothing is said.

    Raises:
        ValueError: a passport says something that is no time.
    """
    seconds = {
        number(passport.get("seconds_per_feature", 1.0), f"{folder}: passport") for passport in passports
    }
    if any(time <= 0 for time in seconds):
        raise ValueError(f"{folder}: passport: seconds_per_feature must be above 0, got {min(seconds):g}.")
    return sorted(1 / time for time in seconds or {1.0})


def wrong_rate(folder: str, passports: Sequence[Mapping[str, Any]]) -> list[str]:
    """Sanity check: features of several rates cannot be read as one."""
    rates = rates_of(folder, passports)
    if len(rates) == 1:
        return []
    listed = ", ".join(f"{rate:g}" for rate in rates)
    return [f"{folder}: {listed} features a second by the passports, expected one rate. Extract them alike."]
