"""Table and figure of a comparison of losses."""

from __future__ import annotations

import json
import re
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.comparison import Comparison
from mmpt.evaluators.report import markdown_table, text_table
from mmpt.utils.files import atomic_write
from mmpt.utils.optional import optional_import

MARKS = ("<!-- results:begin -->", "<!-- results:end -->")
SHARE = re.compile(r"(R\d+|acc|Ravg)$")  # measures between 0 and 1, shown in percent
FEW = 2  # losses up to which all noises share one table

Results = Sequence[Mapping[str, Any]]


def write_report(results: Results, costs: Mapping[str, float], comparison: Comparison) -> str:
    """Write results.json, results.md and results.png; returns what the terminal shows."""
    out = Path(comparison.out)
    with atomic_write(out / "results.json", "w") as file:
        json.dump({"settings": asdict(comparison), "step_cpu_ms": costs, "runs": results}, file, indent=1)
    tables = table_blocks(results, costs, comparison)
    with atomic_write(out / "results.md", "w") as file:
        file.write(
            "\n\n".join(
                (f"### Noise: {head}\n\n" if head else "") + markdown_table(rows)
                for head, rows in tables.items()
            )
            + "\n"
        )
    figure = draw(out / "results.png", results, comparison)
    title = ", ".join(
        filter(None, ["percent", " / ".join(comparison.measure_names), "mean ± spread over seeds"])
    )
    blocks = [
        f"{f'noise {head}: ' if head else ''}{title}\n{text_table(rows)}" for head, rows in tables.items()
    ]
    return "\n\n".join([*blocks, f"results: {out / 'results.json'}\nfigure:  {figure}"])


def update_page(page: Path, comparison: Comparison) -> None:
    """Put the tables of a comparison between the two markers of a page, and the figure beside it.

    A page for several comparisons has markers that name the output folder: `<!-- results:begin
    runs/compare_gdt -->`; their figures are called `<page>_<folder>.png`.
    """
    out, text = Path(comparison.out), page.read_text()
    marks, figure = (
        tuple(mark.replace(" -->", f" {comparison.out} -->") for mark in MARKS),
        page.with_name(f"{page.stem}_{out.name}.png"),
    )
    if marks[0] not in text:
        marks, figure = MARKS, page.with_suffix(".png")
    before, begin, rest = text.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not end:
        raise ValueError(
            f"{page}: expected the lines {MARKS[0]} and {MARKS[1]}, between which the tables go."
        )
    with atomic_write(page, "w") as file:
        file.write(f"{before}{begin}\n{(out / 'results.md').read_text()}{end}{after}")
    shutil.copy(out / "results.png", figure)


def table_blocks(
    results: Results, costs: Mapping[str, float], comparison: Comparison
) -> dict[str, list[list[str]]]:
    """Noise -> its table; "" -> one table for all noises where there are few losses, or one noise."""
    noises = list(dict.fromkeys(result["noise"] for result in results))
    tables = {
        noise: table([result for result in results if result["noise"] == noise], costs, comparison)
        for noise in noises
    }
    if len(noises) == 1:
        return {"": tables[noises[0]]}
    if len(comparison.losses) > FEW:
        return tables
    (head, *_), *_ = tables.values()
    lines = [
        [noise, *line]
        for noise, (_, *rows) in tables.items()
        for line in rows
        if line[0] != "chance" or noise == noises[0]
    ]
    return {"": [["world", *head], *lines]}


def table(results: Results, costs: Mapping[str, float], comparison: Comparison) -> list[list[str]]:
    """One row a loss: every column, cost and memory."""
    heads = {head: comparison.measures(head) for head in comparison.columns}
    rows = [["loss", "seeds", *heads, "ms / step", "MiB"]]
    rows.append(["chance", "", *(chance(results[0], measures[0]) for measures in heads.values()), "", ""])
    for row in dict.fromkeys(result["row"] for result in results):
        own = [result for result in results if result["row"] == row]
        cells = [
            " / ".join(spread([value(result, measure) for result in own]) for measure in measures)
            for measures in heads.values()
        ]
        memory = statistics.mean(result["peak_mib"] for result in own)
        rows.append(
            [row, str(len(own)), *cells, f"{costs[row]:.0f}" if row in costs else "", f"{memory:.0f}"]
        )
    return rows


def value(result: Mapping[str, Any], measure: str) -> float:
    """`test/measure` of one run, shares in percent."""
    test, _, name = measure.partition("/")
    return (100 if SHARE.search(name) else 1) * result["values"][test][name]


def chance(result: Mapping[str, Any], measure: str) -> str:
    """What random scores reach by a measure, or nothing where there is no such number."""
    test, _, name = measure.partition("/")
    known = result["values"][test]
    found = [known[key] for key in (f"chance-{name}", f"chance-{name.rpartition('-')[2]}") if key in known]
    return f"{100 * found[0]:.1f}" if found and SHARE.search(name) else ""


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation of the sample; the value alone where there is one."""
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.1f}"


@dataclass(frozen=True)
class Panel:
    """A part of the figure: line -> values of the seeds at each tick; lines are drawn where the ticks have an
    order."""

    title: str
    ticks: list[str]
    lines: dict[str, list[list[float]]]
    joined: bool


def panels_of(results: Results, comparison: Comparison) -> list[list[Panel]]:
    """Rows of the figure.

    Over several noises each row is an axis of the comparison (without axes: all noises, not joined), with a
    panel a drawn column and a line a loss, by the last measure of the cells; with `lines: columns` a panel a
    loss and measure and a line a drawn column. With one noise, a panel a column over the losses, and a line a
    measure.
    """
    noises = list(dict.fromkeys(result["noise"] for result in results))
    losses = list(dict.fromkeys(result["row"] for result in results))
    heads = comparison.drawn_columns

    def found(loss: str, noise: str, head: str, which: int = -1) -> list[float]:
        own = [result for result in results if (result["row"], result["noise"]) == (loss, noise)]
        return [value(result, comparison.measures(head)[which]) for result in own]

    def names(head: str) -> list[tuple[int, str]]:
        return list(enumerate(comparison.measure_names if len(comparison.measures(head)) > 1 else [""]))

    if len(noises) == 1:
        return [
            [
                Panel(
                    head,
                    losses,
                    {name: [found(loss, noises[0], head, k) for loss in losses] for k, name in names(head)},
                    False,
                )
                for head in heads
            ]
        ]
    rows = []
    for axis, along in (comparison.axes or {"": noises}).items():
        title, joined = (f"{axis}: {{}}", True) if axis else ("{}", False)
        if comparison.lines == "losses":
            titles = {head: " ".join(filter(None, (head, names(head)[-1][1]))) for head in heads}
            lines = {
                titles[head]: {loss: [found(loss, noise, head) for noise in along] for loss in losses}
                for head in heads
            }
        else:
            moved = [loss for loss in losses if all(found(loss, noise, heads[0]) for noise in along)]
            cells = list(enumerate(comparison.measure_names or [""]))
            lines = {
                f"{loss} {name}".strip(): {head: [found(loss, n, head, k) for n in along] for head in heads}
                for loss in moved
                for k, name in cells
            }
        rows.append([Panel(title.format(what), along, of, joined) for what, of in lines.items()])
    return rows


def draw(path: Path, results: Results, comparison: Comparison) -> Path:
    """The drawn columns as `panels_of` lays them out; bars span the seeds."""
    rows = panels_of(results, comparison)
    width = max(map(len, rows))
    drawing = optional_import("matplotlib.figure", "reports").Figure(
        figsize=(4.2 * width + 2, 4.2 * len(rows) + 0.4), layout="constrained"
    )
    optional_import("matplotlib.backends.backend_agg", "reports").FigureCanvasAgg(drawing)
    handles = {}
    grid = drawing.subplots(
        len(rows), width, squeeze=False, sharey="col" if comparison.lines == "losses" else "row"
    )
    for row, panels in zip(grid, rows, strict=True):
        for axes, panel in zip(row, panels, strict=False):
            handles |= dict(zip(panel.lines, _draw_panel(axes, panel), strict=True))
        for axes in row[len(panels) :]:
            axes.set_axis_off()
    handles.pop("", None)
    if handles:
        drawing.legend(handles.values(), handles.keys(), loc="outside right center", fontsize=8)
    drawing.savefig(path, dpi=120)
    return path


def _draw_panel(axes: Any, panel: Panel) -> list[Any]:
    """Dots side by side at each tick, with bars; returns what the legend shows."""
    colours = optional_import("matplotlib", "reports").colormaps["tab20"]
    handles = []
    for number, (line, at_ticks) in enumerate(panel.lines.items()):
        points = [
            (x + 0.02 * (number - len(panel.lines) / 2), values)
            for x, values in enumerate(at_ticks)
            if values
        ]
        middle = [statistics.mean(values) for _, values in points]
        low, high = ([end(values) for _, values in points] for end in (min, max))
        style = {
            "marker": "o",
            "markersize": 4,
            "linewidth": int(panel.joined),
            "elinewidth": 1,
            "color": colours(number % 20),
        }
        handles.append(
            axes.errorbar(
                [x for x, _ in points], middle, np.abs(np.array([low, high]) - middle), label=line, **style
            )
        )
    axes.set_title(panel.title, fontsize=10)
    axes.yaxis.set_tick_params(labelleft=True)
    slanted = (
        {} if sum(map(len, panel.ticks)) < 40 else {"rotation": 60, "ha": "right", "rotation_mode": "anchor"}
    )
    axes.set_xticks(range(len(panel.ticks)), panel.ticks, **slanted)
    return handles
