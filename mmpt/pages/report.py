"""Training runs as one HTML file with interactive curves. Plotly draws them, from within the file."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mmpt
from mmpt.evaluators.compare import compare, load_queries, same_queries
from mmpt.evaluators.plots import BLUE, GREEN, GREY, ORANGE, PINK
from mmpt.inference.align import VideoAlignment
from mmpt.pages.render import write
from mmpt.pages.runs import ZERO_SHOT, RunRecord
from mmpt.utils import optional_import

COLOURS = (BLUE, ORANGE, GREEN, PINK, "#e69f00", "#56b4e9", GREY)
FEW = 4  # terms of a loss that share a picture, each with its validation
NAMED = 25  # captions beside a transport plan
POINTS = 4000  # of a curve
SAMPLES = 2000  # bootstrap samples of a comparison
Chart = dict[str, Any]


def write_report(
    path: str | Path,
    runs: Sequence[RunRecord],
    plans: Mapping[str, Sequence[tuple[str, VideoAlignment]]] | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Writes the page.

    Args:
        path: where.
        runs: one run, or several to compare; the first is what others are compared with.
        plans: run -> (checkpoint, alignment of the same video by it), oldest first.
        notes: what its reader should know.
    """
    charts = [chart for chart in (*_curves(runs), *_evaluations(runs)) if chart["data"]]
    maps = [_plan(name, found) for name, found in (plans or {}).items() if found]
    tables, remarks = _comparisons(runs)
    return write(
        path,
        "report.html",
        title=" and ".join(run.name for run in runs),
        runs=runs,
        several=len(runs) > 1,
        facts=_facts(runs),
        charts=charts,
        maps=maps,
        comparisons=tables,
        notes=[*notes, *remarks],
        differences=_differences(runs),
        environment={
            "written with mmpt": mmpt.__version__,
            "torch": torch.__version__,
            "Python": platform.python_version(),
            "machine": platform.platform(),
        },
        script=optional_import("plotly.offline", extra="pages").get_plotlyjs(),
    )


def _facts(runs: Sequence[RunRecord]) -> list[list[str]]:
    """Rows: a fact of every run."""
    found = [run.facts() for run in runs]
    names = dict.fromkeys(name for facts in found for name in facts)
    return [[name, *(facts.get(name, "") for facts in found)] for name in names]


def _curves(runs: Sequence[RunRecord]) -> list[Chart]:
    several = len(runs) > 1
    terms = list(dict.fromkeys(name for run in runs for name in run.losses))
    charts = []
    alone = several or len(terms) > FEW  # each term has a picture of its own
    for title, names in {name: [name] for name in terms}.items() if alone else [("loss", terms)]:
        lines = []
        for number, run in enumerate(runs):
            for order, name in enumerate(names):
                colour = COLOURS[(number if several else order) % len(COLOURS)]
                label = run.name if several else name
                lines.append(_line(run.training, name, label, colour))
                lines.append(_line(run.valid, name, f"{label}, validation", colour, dash="dot", markers=True))
        charts.append(_chart(title, lines, "loss"))
    charts += _zero_shot(runs)
    plain = {
        "learning rate": ("lr", "learning rate"),
        "gradient norm": ("gnorm", "norm before clipping"),
        "updates clipped": ("clip", "percent"),
        "time spent waiting for data": ("data_wait", "share"),
        "speed": ("clips_per_s", "clips a second"),
        "operations": ("mfu", "share of the card's rate"),
        "highest memory": ("peak_gib", "GiB"),
        "temperature": ("temperature", "divides the scores"),
    }
    for title, (name, axis) in plain.items():
        lines = [
            _line(run.training, name, run.name if several else title, COLOURS[number % len(COLOURS)])
            for number, run in enumerate(runs)
        ]
        charts.append(_chart(title, lines, axis, from_zero=True))
    return charts


def _zero_shot(runs: Sequence[RunRecord]) -> list[Chart]:
    """The test at each validation: all measures of one run, the first one of several runs."""
    charts = []
    for group in dict.fromkeys(group for run in runs for group in run.zero_shot):
        title = f"zero-shot test{group and f', {group}'}"
        if len(runs) == 1:
            shown = [(name, runs[0], name) for name in runs[0].zero_shot[group][: len(COLOURS)]]
        else:
            shown = [(run.name, run, run.zero_shot[group][0]) for run in runs if group in run.zero_shot]
            title += f": {shown[0][2]}"
        lines = [
            _line(
                run.valid,
                f"{ZERO_SHOT}{group and f'{group}-'}{measure}",
                label,
                COLOURS[place % len(COLOURS)],
                markers=True,
            )
            for place, (label, run, measure) in enumerate(shown)
        ]
        charts.append(_chart(title, lines, "share", from_zero=True))
    return charts


def _line(
    rows: Sequence[Mapping[str, Any]],
    key: str,
    name: str,
    colour: str,
    dash: str = "solid",
    markers: bool = False,
) -> Chart | None:
    points = [
        (row["update"], row[key]) for row in rows if _number(row.get(key)) and _number(row.get("update"))
    ]
    if not points:
        return None
    x, y = zip(*_thinned(points), strict=True)
    look = {"color": colour, "dash": dash, "width": 1.6}
    mode = "lines+markers" if markers or len(points) == 1 else "lines"
    return {"type": "scatter", "mode": mode, "x": x, "y": y, "name": name, "line": look}


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """Of a long curve the lowest and the highest point of each piece, so that no jump is lost."""
    piece = 2 * len(points) // POINTS
    if piece < 3:
        return points
    kept = []
    for first in range(0, len(points), piece):
        part = points[first : first + piece]
        kept += sorted({min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])})
    return kept


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _chart(
    title: str,
    lines: Sequence[Chart | None],
    axis: str,
    x: str = "update",
    from_zero: bool = False,
    **layout: Any,
) -> Chart:
    data = [line for line in lines if line is not None]
    y_axis: dict[str, Any] = {"title": {"text": axis}, "rangemode": "tozero" if from_zero else "normal"}
    if max((max(line["y"], default=0) for line in data), default=0) >= 1000:
        y_axis |= {"exponentformat": "none", "separatethousands": True}
    is_named = any(line["name"] != title for line in data)
    told = {"xaxis": {"title": {"text": x}}, "yaxis": y_axis, "showlegend": is_named}
    return {"title": title, "data": data, "layout": told | layout, "spikes": spikes(data)}


def spikes(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader should look at: values ten times as high as the median of those around."""
    found = []
    for line in lines:
        values = list(line.get("y", ()))
        for index, (before, now) in enumerate(pairwise(values), start=1):
            around = statistics.median(values[max(0, index - 20) : index])
            if around > 0 and now > 10 * around and now > 10 * before:
                found.append(f"{line['name']} jumps to {now:.3g} at update {line['x'][index]}")
    return found[:5]


def _evaluations(runs: Sequence[RunRecord]) -> list[Chart]:
    """A picture for each evaluation that a run holds: its recalls with their intervals, runs side by side."""
    tests = list(dict.fromkeys(name for run in runs for name in run.evaluations))
    charts = []
    for test in tests:
        bars = []
        for number, run in enumerate(runs):
            found = run.evaluations.get(test, {})
            values, intervals = found.get("values"), found.get("intervals", {})
            if not isinstance(values, Mapping):
                continue
            names = [name for name, value in values.items() if _number(value) and 0 <= value <= 1]
            low, high = (
                [abs(intervals.get(n, [values[n]] * 2)[side] - values[n]) for n in names] for side in (0, 1)
            )
            error = {"type": "data", "symmetric": False, "array": high, "arrayminus": low}
            bar = {
                "type": "bar",
                "x": names,
                "y": [values[n] for n in names],
                "name": run.name,
                "error_y": error,
            }
            bars.append(bar | {"marker": {"color": COLOURS[number % len(COLOURS)]}})
        charts.append(_chart(f"{test} (bars: 95 % interval)", bars, "value", "", barmode="group"))
    return charts


def _plan(name: str, found: Sequence[tuple[str, VideoAlignment]]) -> dict[str, Any]:
    """The transport plans of one video by checkpoints, one beside the other."""
    pictures = []
    for label, video in found:
        plan = video.plan / np.maximum(video.plan.max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
        texts, short = (
            [text if len(text) <= most else f"{text[: most - 3]}..." for text in video.captions]
            for most in (60, 24)
        )
        step = -(-len(short) // NAMED)
        heat = {
            "type": "heatmap",
            "z": np.round(plan.astype(np.float64), 3).tolist(),
            "x": np.round(video.windows.mean(1).astype(np.float64), 2).tolist(),
            "colorscale": "Viridis",
            "zmin": 0,
            "zmax": 1,
            "colorbar": {"title": {"text": "share of the<br>row's peak"}, "thickness": 12},
            "customdata": [[text] * len(video.windows) for text in texts],
            "hovertemplate": "%{customdata}<br>%{x:.0f} s: %{z:.2f} of its peak<extra></extra>",
        }
        layout = {
            "xaxis": {"title": {"text": "second"}},
            "yaxis": {
                "autorange": "reversed",
                "tickvals": [*range(0, len(short), step)],
                "ticktext": short[::step],
            },
        }
        pictures.append({"title": label, "data": [heat], "layout": layout, "spikes": []})
    return {"run": name, "video": found[0][1].video_id, "pictures": pictures}


def _comparisons(runs: Sequence[RunRecord]) -> tuple[list[dict[str, Any]], list[str]]:
    """Paired tables of the first run with each other one, for the evaluations that both hold."""
    tables, notes = [], []
    first = runs[0]
    for other in runs[1:]:
        for test in (name for name in first.evaluations if name in other.evaluations):
            folders = [str(run.folder / test) for run in (first, other)]
            try:
                rows = compare(*same_queries(*map(load_queries, folders)), SAMPLES, 0)
            except (ValueError, FileNotFoundError) as error:
                notes.append(f"{test}: {first.name} and {other.name} are not compared: {error}")
                continue
            tables.append({"title": f"{test}: {first.name} (A), {other.name} (B)", "rows": rows})
        names = set(first.evaluations), set(other.evaluations)
        if any(names) and not names[0] & names[1]:
            notes.append(
                f"{first.name} and {other.name} hold no evaluation of the same name, so that no numbers are "
                "compared; mmpt predict writes them into the folder of a run."
            )
    return tables, notes


def _differences(runs: Sequence[RunRecord]) -> list[list[str]]:
    """Keys of the project files that are not the same in all runs."""
    keys = dict.fromkeys(key for run in runs for key in run.config)
    rows = [[key, *(_shown(run.config.get(key, (None, ""))[0]) for run in runs)] for key in keys]
    return [row for row in rows if len(set(row[1:])) > 1]


def _shown(value: Any) -> str:
    return "" if value is None else str(value)
