"""An audit as text, as JSON and as a picture."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmpt.audit.explain import Bar, Finding
from mmpt.audit.suspects import FAMILIES
from mmpt.evaluators.plots import plot_waterfall
from mmpt.utils.files import atomic_write

_WIDTH = 66


def text(found: Finding) -> str:
    """The audit for a terminal."""
    lines = [f"{'claim: ' + found.metric:{_WIDTH}} {found.claim.values[found.metric]:7.2f}"]
    lines += [_line(bar) for bar in found.bars]
    low, high = found.interval
    lines.append(
        f"{'clean: ' + found.metric:{_WIDTH}} {found.clean[found.metric]:7.2f} [{low:.2f}, {high:.2f}]"
    )
    lines += ["", verdict(found), _compared(found)]
    lines += [f"also possible ({probability:.1%}): {sentence}" for sentence, probability in found.rivals]
    lines += found.remarks
    if found.sensitivity:
        lines += [
            "",
            "not in the claim; what it would add to the clean number:",
            *map(_line, found.sensitivity),
        ]
    lines += [
        "",
        *(
            f"{name}: {value:.3g}" if isinstance(value, float) else f"{name}: {value}"
            for name, value in found.facts.items()
        ),
    ]
    return "\n".join(lines) + "\n"


def verdict(found: Finding) -> str:
    """One sentence: where the claim comes from."""
    if found.named:
        named = " and ".join(f"{FAMILIES[departure.family]} ({departure.text})" for departure in found.named)
        return f"first suspect ({found.probability:.1%}): {named}."
    if not found.explained:
        return "not explained."
    return f"the claim is the clean number ({found.probability:.1%}): nothing has to be taken off."


def _compared(found: Finding) -> str:
    pairs = ", ".join(
        f"{name} {claimed:g} claimed, {found.reproduced[name]:.2f} found"
        for name, claimed in found.claim.values.items()
    )
    return f"this way: {pairs}."


def _line(bar: Bar) -> str:
    interval = "" if bar.interval is None else f" [{bar.interval[0]:+.2f}, {bar.interval[1]:+.2f}]"
    return f"  {bar.text[: _WIDTH - 2]:{_WIDTH - 2}} {round(bar.points, 2) + 0.0:+7.2f}{interval}"


def to_dict(found: Finding) -> dict[str, Any]:
    """All of it as plain JSON values."""
    return {
        "claim": dict(found.claim.values),
        "metric": found.metric,
        "clean": found.clean,
        "clean_interval": list(found.interval),
        "bars": list(map(_bar, found.bars)),
        "named": [{"family": departure.family, "text": departure.text} for departure in found.named],
        "verdict": verdict(found),
        "probability": found.probability,
        "reproduced": found.reproduced,
        "rivals": [{"text": sentence, "probability": probability} for sentence, probability in found.rivals],
        "sensitivity": list(map(_bar, found.sensitivity)),
        "facts": found.facts,
        "remarks": found.remarks,
    }


def _bar(bar: Bar) -> dict[str, Any]:
    return {**vars(bar), "interval": None if bar.interval is None else list(bar.interval)}


def write_report(found: Finding, folder: str | Path) -> Iterable[Path]:
    """Write audit.txt, audit.json and audit.png; returns their paths."""
    folder = Path(folder)
    for name, content in (
        ("audit.txt", text(found)),
        ("audit.json", json.dumps(to_dict(found), indent=1) + "\n"),
    ):
        with atomic_write(folder / name, "w") as file:
            file.write(content)
    steps = [(bar.text, bar.points, bar.interval) for bar in found.bars]
    picture = plot_waterfall(
        folder / "audit.png",
        ("claim", found.claim.values[found.metric]),
        steps,
        ("clean", found.clean[found.metric], found.interval),
        title=f"{found.metric}, percent; lines: 95 % interval",
    )
    return folder / "audit.txt", folder / "audit.json", picture
