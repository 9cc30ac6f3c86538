"""Table and figure of a comparison of losses."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments.comparison import Comparison
from mmpt.evaluators import paired_runs, records
from mmpt.evaluators.plots import MARKS, plot_dots
from mmpt.evaluators.records import Cell
from mmpt.evaluators.report import text_table

SHARE = re.compile(r"(R\d+|acc|Ravg)$")  # measures between 0 and 1, shown in percent
SPELT = {"acc": "accuracy", "Ravg": "mean recall"}
FEW = 2  # losses up to which all noises share one table

Dot = tuple[float, float, float]  # a number with the bounds of its bar
Results = Sequence[Mapping[str, Any]]


def write_report(
    results: Results, costs: Mapping[str, float], comparison: Comparison, record: Path, figure: Path
) -> str:
    """Write the record, from which every number of the tables is derived again, and the figure; returns what
    the terminal shows."""
    of_cells = f", {' / '.join(comparison.measure_names)}" if comparison.measure_names else ""
    tables = {
        f"{f'{head}: ' if head else ''}percent{of_cells}, mean ± standard deviation over seeds": rows
        for head, rows in table_blocks(results, costs, comparison).items()
    }
    about = {
        "command": f"python -m experiments.compare_losses {comparison.path}",
        "comparison": asdict(comparison),
        "data": {result["noise"]: result["data"] for result in results},
        "weights": {
            f"{result['noise']}, seed {result['seed']}, {result['row']}": result["weights"]
            for result in results
        },
        "step_cpu_ms": costs,
        "machine": records.machine(),
    }
    configs = {result["row"]: result["config"] for result in reversed(results)}
    records.write_record(record, tables, per_query(results), configs, about)
    draw(figure, results, comparison)
    blocks = [f"{title}\n{text_table(rows)}" for title, rows in records.tables(record).items()]
    return "\n\n".join([*blocks, f"record: {record}\nfigure: {figure}"])


def per_query(results: Results) -> dict[str, dict[str, dict[str, list[Any]]]]:
    """Row -> world -> measure -> what is kept of the queries of each run."""
    kept: dict[str, dict[str, dict[str, list[Any]]]] = {}
    for result in results:
        of_world = kept.setdefault(result["row"], {}).setdefault(result["noise"], {})
        for measure, queries in result["queries"].items():
            of_world.setdefault(measure, []).append(queries)
    return kept


def table_blocks(
    results: Results, costs: Mapping[str, float], comparison: Comparison
) -> dict[str, list[list[Cell]]]:
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


def table(results: Results, costs: Mapping[str, float], comparison: Comparison) -> list[list[Cell]]:
    """One row, of one noise, a loss: every column, cost and memory."""
    heads = {head: comparison.measures(head) for head in comparison.columns}
    heads = {head: comparison.measures(head) for head in comparison.columns}
    rows: list[list[Cell]] = [["loss", "seeds", *heads, "ms / step", "MiB"]]
    rows.append(["chance", "", *(chance(results[0], measures[0]) for measures in heads.values()), "", ""])
    for row in dict.fromkeys(result["row"] for result in results):
        own = [result for result in results if result["row"] == row]
        cells = [paired_runs.spread(row, own[0]["noise"], measures) for measures in heads.values()]
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


def panels_of(
    results: Results, comparison: Comparison
) -> tuple[dict[tuple[str, str], dict[str, list[Dot | None]]], list[str]]:
    """What `plot_dots` draws, and the names beside it.

    With one noise a panel for each drawn column, a name for each loss and a mark for each measure of a cell.
    Over several noises a name for each noise and a mark for each loss, by the last measure of the cells; with
    `lines: columns` a panel for each measure of the cells, a name for each noise and loss, and a mark for
    each drawn column.
    """
    noises = list(dict.fromkeys(result["noise"] for result in results))
    losses = list(dict.fromkeys(result["row"] for result in results))
    heads = comparison.drawn_columns

    def dot(loss: str, noise: str, head: str, which: int = -1) -> Dot | None:
        own = [result for result in results if (result["row"], result["noise"]) == (loss, noise)]
        return mean_and_spread([value(result, comparison.measures(head)[which]) for result in own])

    def cells(head: str) -> list[tuple[int, str]]:
        return list(enumerate(comparison.measure_names if len(comparison.measures(head)) > 1 else [""]))

    if len(noises) == 1:
        of_one = {
            ("", titled(head, comparison)): {
                cell: [dot(loss, noises[0], head, which) for loss in losses] for which, cell in cells(head)
            }
            for head in heads
        }
        return of_one, losses
    if comparison.lines == "columns":
        runs = list(dict.fromkeys((result["noise"], result["row"]) for result in results))
        unit = titled(heads[0], comparison).removeprefix(heads[0])
        of_columns = {
            ("", f"{cell}{unit}"): {
                head: [dot(loss, noise, head, which) for noise, loss in runs] for head in heads
            }
            for which, cell in enumerate(comparison.measure_names or [""])
        }
        return of_columns, [f"{noise}, {loss}" for noise, loss in runs]
    few = [losses[first : first + len(MARKS)] for first in range(0, len(losses), len(MARKS))]
    of_losses = {
        (
            f"losses {number}" if len(few) > 1 else "",
            ", ".join(filter(None, (titled(head, comparison), cells(head)[-1][1]))),
        ): {loss: [dot(loss, noise, head) for noise in noises] for loss in some}
        for number, some in enumerate(few, start=1)
        for head in heads
    }
    return of_losses, noises


def titled(head: str, comparison: Comparison) -> str:
    """A column's head, over the measure and its unit where it has one."""
    share = SHARE.search(comparison.measures(head)[0])
    return f"{head}\n{SPELT.get(share[0], share[0].replace('R', 'R@'))}, percent" if share else head


def mean_and_spread(values: Sequence[float]) -> Dot | None:
    """The mean, less and more the standard deviation of the sample; None without values."""
    if not values:
        return None
    mean, deviation = statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0
    return mean, mean - deviation, mean + deviation


def draw(path: Path, results: Results, comparison: Comparison) -> Path:
    """The drawn columns as `panels_of` lays them out."""
    return plot_dots(path, *panels_of(results, comparison), "mean, and standard deviation over seeds")
