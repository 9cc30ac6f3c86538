"""One evaluation as files: results.json, results.md and per_query.npz.

The report holds the numbers and all that decides whether they may be compared with others: gallery and query
counts beside the published ones, ids left out, duplicate captions, tie rule, chance, intervals, which files
with which checksum, which checkpoint with which tensors missing, settings and which of them differ from the
published protocol.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mmpt
from mmpt.config.check import named_files
from mmpt.evaluators import sanity
from mmpt.evaluators.published import departures, same_size
from mmpt.evaluators.result import Result
from mmpt.processors.verify import training_data
from mmpt.utils.files import atomic_write, file_sha256
from mmpt.utils.text import first_of

NAMED = 5  # missing ids named in the text report; results.json holds all


@dataclass(frozen=True)
class Report:
    """An result and where it comes from.

    Attributes:
        name: title, usually the project file.
        result: numbers, intervals, baselines, facts.
        checkpoint: path, sha256, missing and unexpected tensors, verdict; empty for an untrained model.
        data: one entry per file or folder read, see `describe_data`.
        missing: reason -> video of each item of the test list that was left out.
        missing_queries: how many queries that makes, so that it can be said how far the score could move;
            None: unknown.
        settings: the resolved project file.
        warnings: sentences about what looks wrong, beside those of the result.
        plots: names of pictures in the report's folder.
    """

    name: str
    result: Result
    checkpoint: Mapping[str, Any] = field(default_factory=dict)
    data: list[dict[str, Any]] = field(default_factory=list)
    missing: Mapping[str, list[str]] = field(default_factory=dict)
    missing_queries: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    plots: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the per-query arrays, as plain JSON values."""
        return {
            "name": self.name,
            "best_metric": self.result.best_metric,
            **{part: getattr(self.result, part) for part in ("values", "intervals", "baselines", "facts")},
            "warnings": self.all_warnings(),
            "differs_from_published": departures(self.settings, self.result.facts),
            "if_missing_were_there": self.reach(),
            "missing": dict(self.missing),
            "checkpoint": dict(self.checkpoint),
            "data": self.data,
            "settings": dict(self.settings),
            "plots": self.plots,
            "versions": {"mmpt": mmpt.__version__, "torch": torch.__version__},
        }

    def reach(self) -> dict[str, tuple[float, float]]:
        """Lowest and highest value that each recall, or mean over queries, could take if the items left out
        were there.

        A missing item may push every rank down by one, and its own query may be found or not.
        """
        n_missing = self.missing_queries
        if not n_missing:
            return {}
        found = self.result.per_query
        if "ranks" in found and "gallery" in self.result.facts:
            ranks = found["ranks"]
            hits = {f"R{k}": ((ranks + n_missing <= k).sum(), (ranks <= k).sum()) for k in (1, 5, 10)}
            n_found = len(ranks)
        elif self.result.best_metric in found and "weight" not in found:
            values = found[self.result.best_metric]
            hits = {self.result.best_metric: (values.sum(),) * 2}
            n_found = len(values)
        else:
            return {}
        n_queries = n_found + n_missing
        return {
            name: (float(low / n_queries), float((high + n_missing) / n_queries))
            for name, (low, high) in hits.items()
        }

    def all_warnings(self) -> list[str]:
        return [*self.result.warnings, *sanity.no_better_than_trivial(self.result), *self.warnings]

    def markdown(self) -> str:
        """The report as a Markdown page."""
        best = f"Best-checkpoint metric: {self.result.best_metric} = {self.result.best:.4f}."
        sections = [f"# {self.name}", markdown_table(self.table()), best]
        sections += [f"**Warning:** {text}" for text in self.all_warnings()]
        sections.append("\n".join(f"- {line}" for line in self.facts()))
        if len(numbers := self.numbers()) > 1:
            sections.append(markdown_table(numbers))
        if self.data:
            sections.append(
                markdown_table(
                    [["key", "path", "content"], *([e["key"], e["path"], _content(e)] for e in self.data)]
                )
            )
        sections += [f"![{Path(name).stem}]({name})" for name in self.plots]
        return "\n\n".join(sections) + "\n"

    def text(self) -> str:
        """The report for a terminal."""
        lines = [
            self.name,
            text_table(self.table()),
            *(f"warning: {text}" for text in self.all_warnings()),
            *self.facts(),
        ]
        if len(numbers := self.numbers()) > 1:
            lines.append(text_table(numbers))
        return "\n".join(lines)

    def facts(self) -> list[str]:
        """One line per fact that is no map of numbers."""
        lines = [
            f"{name}: {value}" for name, value in self.result.facts.items() if not isinstance(value, Mapping)
        ]
        same = same_size(self.settings, self.result.facts)
        if same:
            lines.append(f"test set as published: {same}")
        lines += [
            f"differs from the published protocol: {text}"
            for text in departures(self.settings, self.result.facts)
        ]
        for reason, items in self.missing.items():
            ids = list(dict.fromkeys(items))
            named = first_of(ids, NAMED)
            lines.append(f"missing: {len(items)} items of {len(ids)} ids {reason}: {named}")
        lines += [
            f"{name} with the missing items: between {low:.4f} and {high:.4f}"
            for name, (low, high) in self.reach().items()
        ]
        if self.checkpoint:
            lines.append(f"checkpoint: {self.checkpoint['path']}: {self.checkpoint['verdict']}")
            lines += training_data(self.checkpoint.get("training", {}).get("data", {}))
        return lines

    def table(self) -> list[list[str]]:
        """Rows: measures, then trivial baselines; columns: statistics; intervals in brackets."""
        result = self.result
        statistics = list(dict.fromkeys(name.rsplit("-", 1)[-1] for name in result.values))
        measures = list(dict.fromkeys(_measure(name) for name in result.values))
        rows = [["measure", *statistics]]
        for measure in measures:
            names = [f"{measure}-{statistic}" if measure else statistic for statistic in statistics]
            rows.append(
                [
                    measure or "main",
                    *(_cell(result.values.get(name), result.intervals.get(name)) for name in names),
                ]
            )
        for model, values in result.baselines.items():
            levels = [_levels(values, statistic) for statistic in statistics]
            if max(map(len, levels)) <= 1:
                rows.append([model, *(_cell(next(iter(level), None)) for level in levels)])
                continue
            for measure in measures:
                names = [f"{measure}-{statistic}" if measure else statistic for statistic in statistics]
                if not values.keys().isdisjoint(names):
                    found = [_cell(values.get(name)) for name in names]
                    rows.append([f"{model} {measure}".rstrip(), *found])
        return rows

    def numbers(self) -> list[list[str]]:
        """Facts that are maps of numbers, side by side: a column each."""
        facts = {name: value for name, value in self.result.facts.items() if isinstance(value, Mapping)}
        names = dict.fromkeys(name for values in facts.values() for name in values)
        return [
            ["fact", *facts],
            *([name, *(str(values.get(name, "")) for values in facts.values())] for name in names),
        ]

    def write(self, folder: str | Path) -> Path:
        """Write the three files, each whole or not at all, and return the path of results.json."""
        folder = Path(folder)
        with atomic_write(folder / "per_query.npz") as file:
            np.savez_compressed(file, **self.result.per_query)
        with atomic_write(folder / "results.md", "w") as file:
            file.write(self.markdown())
        with atomic_write(folder / "results.json", "w") as file:
            json.dump(_plain(self.to_dict()), file, indent=2)
        return folder / "results.json"


def describe_data(dataset_settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every file and folder that the `dataset` section names: checksum and size, or entries of a folder;
    absent ones say so."""
    entries = []
    for key, value in named_files(dataset_settings).items():
        path = Path(value)
        entry: dict[str, Any] = {"key": key, "path": value}
        if path.is_file():
            entry |= {"sha256": file_sha256(path), "bytes": path.stat().st_size}
        elif path.is_dir():
            entry["entries"] = sum(1 for _ in path.iterdir())
        else:
            entry["absent"] = True
        entries.append(entry)
    return entries


def text_table(rows: list[list[str]]) -> str:
    """Columns aligned by spaces."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def markdown_table(rows: list[list[str]]) -> str:
    """First row is the head."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _measure(name: str) -> str:
    return name.rsplit("-", 1)[0] if "-" in name else ""


def _levels(values: Mapping[str, float], statistic: str) -> set[float]:
    """What a trivial model reaches by the measures that have it; often the same by all."""
    return {value for name, value in values.items() if name.rsplit("-", 1)[-1] == statistic}


def _cell(value: float | None, bounds: tuple[float, float] | None = None) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" + (f" [{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds else "")


def _content(entry: Mapping[str, Any]) -> str:
    if "sha256" in entry:
        return f"{entry['bytes']} bytes, sha256 {entry['sha256'][:16]}..."
    if "entries" not in entry:
        return "absent"
    about = ", ".join(
        f"{name} {value}" for passport in entry.get("passports", ()) for name, value in passport.items()
    )
    return (
        f"{entry['entries']} entries, {about or 'no passport'}"
        if "passports" in entry
        else f"{entry['entries']} entries"
    )


def _plain(value: Any) -> Any:
    """JSON knows neither tuples of numpy numbers nor NaN."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
