"""A replay in words, and as plain values."""

from __future__ import annotations

import math
import statistics
from typing import Any

from mmpt.replay.parting import Parting
from mmpt.replay.repeat import Replay


def as_dict(replay: Replay) -> dict[str, Any]:
    """For JSON: items in the order of the table."""
    return {
        "run": str(replay.run),
        "update": replay.update,
        "checkpoint": None if replay.checkpoint is None else replay.checkpoint.name,
        "processes": replay.processes,
        "grad_hash": replay.found,
        "logged_grad_hash": replay.logged,
        "reproduced": replay.reproduced,
        "error": replay.error,
        "batches": [
            {key: batch.get(key) for key in ("rank", "batch", "loss", "terms")} for batch in replay.batches
        ],
        "items": ranked(replay),
    }


def ranked(replay: Replay) -> list[dict[str, Any]]:
    """The items of all ranks: those with numbers that are not finite first, then by what they add to the
    loss.

    `share` is the norm of an item's part of the gradient over the sum of all norms; `times_median` the norm
    over the median one.
    """
    items = [
        {"rank": batch["rank"], "batch": batch["batch"], **item}
        for batch in replay.batches
        for item in batch["items"]
    ]
    norms = [item["norm"] for item in items if math.isfinite(item["norm"])]
    total, middle = sum(norms), statistics.median(norms) if norms else 0.0
    for item in items:
        norm = item["norm"] if math.isfinite(item["norm"]) else None
        item["norm"] = norm
        item["loss"] = item["loss"] if math.isfinite(item["loss"]) else None
        item["share"] = norm / total if norm is not None and total else None
        item["times_median"] = norm / middle if norm is not None and middle else None
    return sorted(items, key=lambda item: (item["finite"], -(item["loss"] or 0.0), -(item["norm"] or 0.0)))


def as_text(replay: Replay, most: int = 20) -> str:
    """For a terminal.

    Args:
        replay: what was found.
        most: items shown.
    """
    begin = "its beginning" if replay.checkpoint is None else replay.checkpoint.name
    lines = [
        f"{replay.run}, update {replay.update}: made again from {begin} on {replay.processes} "
        f"process{'es' * (replay.processes > 1)}",
        f"gradient {replay.found}: {_verdict(replay)}",
    ]
    if replay.error:
        lines += ["the update failed:", *(f"    {line}" for line in replay.error.splitlines()[-5:])]
    for batch in replay.batches:
        terms = ", ".join(f"{name} {value:.4f}" for name, value in (batch.get("terms") or {}).items())
        if "loss" in batch:
            lines.append(f"rank {batch['rank']}, batch {batch['batch']}: loss {batch['loss']:.4f} ({terms})")
    items = ranked(replay)
    lines += ["", f"{len(items)} items, by what each adds to the loss", _HEAD]
    for item in items[:most]:
        lines.append(_row(item))
    if len(items) > most:
        lines.append(f"... {len(items) - most} more")
    return "\n".join(lines)


_HEAD = f"{'loss':>8} {'gradient':>9} {'x median':>9} {'rank':>5} {'item':>8}  video"


def _row(item: dict[str, Any]) -> str:
    loss = "n/a" if item["loss"] is None else f"{item['loss']:+.4f}"
    share = "n/a" if item["share"] is None else f"{100 * item['share']:.2f}%"
    times = "" if item["times_median"] is None else f"{item['times_median']:.2f}"
    note = "" if item["finite"] else "   NaN or infinity in its features"
    return (
        f"{loss:>8} {share:>9} {times:>9} {item['rank']:>5} {item['item']:>8}  {item['video'] or '?'}{note}"
    )


def _verdict(replay: Replay) -> str:
    if replay.found is None:
        return "there is none"
    if replay.logged is None:
        return "the run did not log that of this update (it does every log_interval updates)"
    if replay.reproduced:
        return "the one that the run logged"
    return f"NOT the one that the run logged ({replay.logged})"


def parting_as_dict(found: Parting) -> dict[str, Any]:
    """For JSON; `update` is null where the runs do not part."""
    return {
        "update": found.update,
        "equal_up_to": found.equal,
        "settings": found.settings,
        "replays": [as_dict(replay) for replay in found.replays or ()],
    }


def parting_as_text(found: Parting, most: int = 20) -> str:
    """Where two runs part, for a terminal."""
    a, b = found.a.folder, found.b.folder
    lines = [f"{key}: {first!r} in {a}, {second!r} in {b}" for key, (first, second) in found.settings.items()]
    if lines:
        lines = ["settings that differ:", *(f"    {line}" for line in lines), ""]
    if found.update is None:
        return "\n".join([*lines, f"{a} and {b} are equal up to update {found.equal}, the last in both logs"])
    lines.append(f"{a} and {b} part at update {found.update}; they are equal up to {found.equal}")
    if found.replays is not None:
        first, second = (_made_of(replay) for replay in found.replays)
        same = "the same items" if first == second else "other items"
        lines.append(f"its batches hold {same} in both runs")
        for replay in found.replays:
            lines += ["", as_text(replay, most)]
    return "\n".join(lines)


def _made_of(replay: Replay) -> list[list[tuple[int, str | None]]]:
    return [[(item["item"], item["video"]) for item in batch["items"]] for batch in replay.batches]
