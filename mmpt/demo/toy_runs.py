"""What commands that train on the synthetic data share: project files moved to other folders, and run folders
that know their settings."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmpt.config import find_project, recursive_config
from mmpt.utils.files import atomic_write
from mmpt.utils.text import read_json, read_json_log

PROJECTS = find_project("projects/toy")
STAMP = "toy_run.json"
COST = "cost.json"


def move_folders(path: str | Path, moves: Mapping[str, str]) -> list[str]:
    """`--set` texts that point every path of a project file below one of the old folders to the new one.

    Args:
        path: the project file.
        moves: old folder -> new folder.
    """
    return [f"{key}={value}" for key, value in _moved(recursive_config(path), moves)]


def _moved(tree: Mapping[str, Any], moves: Mapping[str, str], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _moved(value, moves, f"{prefix}{key}.")
        for old, new in moves.items():
            if isinstance(value, str) and old != new and value.startswith(old + "/"):
                yield prefix + key, new + value.removeprefix(old)


def set_length(updates: int) -> list[str]:
    """`--set` texts that end training, its learning-rate schedule and a warm-up of a twentieth of it with
    `updates`."""
    texts = [f"fairseq.optimization.{key}={updates}" for key in ("max_update", "total_num_update")]
    return [*texts, f"fairseq.optimization.warmup_updates={max(1, updates // 20)}"]


def data_fingerprint(data: str | Path) -> str:
    """Names the synthetic world in a folder."""
    return read_json(Path(data) / "stamp.json", dict)["fingerprint"]


def data_files(data: str | Path) -> int:
    """How many files the synthetic world in a folder has; their sizes are part of its stamp."""
    return len(read_json(Path(data) / "stamp.json", dict)["files"])


def claim(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Take a folder for a run with these settings, finished or not.

    Returns:
        Whether there is still something to do in it.

    Raises:
        SystemExit: the folder holds a run with other settings.
    """
    stamp = folder / STAMP
    found = read_json(stamp, dict) if stamp.is_file() else None
    if found is not None and found["settings"] != json.loads(json.dumps(settings)):
        raise SystemExit(
            f"error: {folder} holds a run with other settings. Delete it to train anew, or choose another "
            "folder."
        )
    if found is None:
        _write(stamp, settings, done=False)
    return found is None or not found["done"]


def finish(folder: Path, settings: Mapping[str, Any]) -> None:
    """Record that the run in a folder is complete."""
    _write(folder / STAMP, settings, done=True)


def cpu_seconds_of_children() -> float:
    """Processor time of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def write_cost(folder: Path, cpu_s: float) -> None:
    """Keep what a run took: its updates, and the processor time of its last part where it was stopped."""
    updates = [line["update"] or 0 for line in read_json_log(folder / "metrics.jsonl")[0]]
    with atomic_write(folder / COST, "w") as file:
        json.dump({"updates": max(updates), "cpu_s": round(cpu_s, 1)}, file)


def read_cost(folder: Path) -> dict[str, float]:
    """`updates` and `cpu_s` of a run; {}: not known."""
    path = folder / COST
    return read_json(path, dict) if path.is_file() else {}


def _write(path: Path, settings: Mapping[str, Any], done: bool) -> None:
    with atomic_write(path, "w") as file:
        json.dump({"settings": settings, "done": done}, file)
