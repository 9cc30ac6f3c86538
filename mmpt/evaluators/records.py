"""Results that carry their proof: a folder from which every cell of a table can be derived again.

    record.json     tables, protocol, data, weights, command, machine, seeds, and what each cell is made from
    per_query.json  row -> test -> measure -> one number per query
    configs.json    row -> the resolved project file
    SEAL            sha256 of each of these files, and of the lines above

A cell is text, or `{"row", "test", "measure", "statistic", "text"}` with the text that these give; of R<k>
and means it is a percentage with its 95 % interval where `interval` is true. What several runs say together:
`mmpt.evaluators.paired_runs`.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.evaluators import paired_runs
from mmpt.evaluators.bootstrap import interval
from mmpt.evaluators.ranking import statistic
from mmpt.evaluators.report import markdown_table
from mmpt.utils.files import atomic_write
from mmpt.utils.text import check_record, read_json

RECORD, PER_QUERY, CONFIGS, SEAL = "record.json", "per_query.json", "configs.json", "SEAL"
FILES = (RECORD, PER_QUERY, CONFIGS)
END = "<!-- record:end -->"
_BLOCK = re.compile(r"(<!-- record:begin ([\w-]+)(?:: ([^\n]+?))? -->)\n.*?" + re.escape(END), re.DOTALL)
SAMPLES, SEED = 1000, 0
UNITS = {"amx_bf16": " with AMX", "avx512f": " with AVX-512", "avx2": " with AVX2"}

Cell = str | dict[str, Any]


def machine() -> dict[str, Any]:
    """What a record says of where it was made."""
    return {
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
        "machine": platform.machine(),
        "processor": processor(),
        "cores": os.cpu_count(),
    }


def processor() -> str:
    """Name of the processor and its widest units for products, "unknown" where the system does not say."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text() if path.is_file() else ""
    told = dict(re.findall(r"^(model name|flags)\s*: (.*)$", lines, re.MULTILINE))
    widest = next((unit for flag, unit in UNITS.items() if flag in told.get("flags", "").split()), "")
    return f"{told.get('model name') or platform.processor() or 'unknown'}{widest}"


def cell(row: str, test: str, measure: str, name: str, with_interval: bool = False) -> dict[str, Any]:
    """A cell of `write_record`: the statistic `name` (R1, R5, MR, mean) of a row's numbers per query."""
    return {"row": row, "test": test, "measure": measure, "statistic": name, "interval": with_interval}


def derive(spec: Mapping[str, Any], per_query: Mapping[str, Any]) -> str:
    """The text of a cell, from the numbers of each query.

    Raises:
        KeyError: nothing of the kind is stored.
    """
    if spec["statistic"] in paired_runs.STATISTICS:
        return paired_runs.derive(spec, per_query)
    values = np.asarray(per_query[spec["row"]][spec["test"]][spec["measure"]], dtype=np.float64)
    of = statistic(spec["statistic"])
    if spec["statistic"] == "MR":
        return f"{float(of(values)):.0f}"
    bounds = ""
    if spec["interval"]:
        low, high = interval(values, of, SAMPLES, np.random.default_rng(SEED))
        bounds = f" [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{100 * float(of(values)):.1f}{bounds}"


def write_record(
    folder: str | Path,
    tables: Mapping[str, Sequence[Sequence[Cell]]],
    per_query: Mapping[str, Any],
    configs: Mapping[str, Any],
    about: Mapping[str, Any],
) -> Path:
    """Write the four files.

    Args:
        folder: made where it is absent.
        tables: title -> rows, the first the head, of texts and of what `cell` gives.
        per_query: row -> test -> measure -> numbers.
        configs: row -> resolved project file.
        about: protocol, data, weights, command, machine, seeds.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    plain = json.loads(json.dumps(per_query, default=lambda x: np.asarray(x).tolist()))
    filled = {
        title: [[c if isinstance(c, str) else {**c, "text": derive(c, plain)} for c in row] for row in rows]
        for title, rows in tables.items()
    }
    contents = {RECORD: {**about, "tables": filled}, PER_QUERY: plain, CONFIGS: configs}
    for name, content in contents.items():
        with atomic_write(folder / name, "w") as file:
            json.dump(content, file, indent=None if name == PER_QUERY else 1, default=str)
            file.write("\n")
    with atomic_write(folder / SEAL, "w") as file:
        file.write(_seal({name: (folder / name).read_bytes() for name in FILES}))
    return folder


def _seal(contents: Mapping[str, bytes]) -> str:
    lines = "".join(f"{hashlib.sha256(contents[name]).hexdigest()}  {name}\n" for name in FILES)
    return f"{lines}{hashlib.sha256(lines.encode()).hexdigest()}  {SEAL}\n"


def broken_seal(folder: str | Path) -> list[str]:
    """The files of a record that are not what was sealed; [SEAL] where the seal itself is not."""
    folder = Path(folder)
    absent = [name for name in (*FILES, SEAL) if not (folder / name).is_file()]
    if absent:
        return absent
    contents = {name: (folder / name).read_bytes() for name in FILES}
    said, made = (folder / SEAL).read_bytes(), _seal(contents).encode()
    if said == made:
        return []
    lines = said.splitlines(keepends=True)
    own = f"{hashlib.sha256(b''.join(lines[: len(FILES)])).hexdigest()}  {SEAL}\n".encode()
    if len(lines) != len(FILES) + 1 or lines[-1] != own:
        return [SEAL]
    sealed = zip(FILES, lines, made.splitlines(keepends=True), strict=False)
    return [name for name, line, now in sealed if line != now] or [SEAL]


def problems(folder: str | Path) -> list[str]:
    """What is wrong with a record: files that changed, cells that their numbers do not give; []: nothing."""
    folder = Path(folder)
    broken = broken_seal(folder)
    if broken:
        return [f"{folder / name}: changed, or absent, since it was sealed." for name in broken]
    per_query = read_json(folder / PER_QUERY, dict, nan=True)
    found = []
    for title, spec in cells(folder):
        text = derive(spec, per_query)
        if text != spec["text"]:
            place = ", ".join(str(spec[name]) for name in ("row", "test", "measure", "statistic"))
            found.append(
                f"{folder / RECORD}: {title}: {place}: says {spec['text']}, its queries give {text}."
            )
    return found


def read_record(folder: str | Path) -> dict[str, Any]:
    """Tables, protocol, data and the like of a record."""
    path = Path(folder) / RECORD
    return check_record(read_json(path, dict, nan=True), str(path), tables=dict)


def cells(folder: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(title of the table, cell) of every cell that is derived."""
    for title, rows in read_record(folder)["tables"].items():
        yield from ((title, c) for row in rows for c in row if isinstance(c, dict))


def tables(folder: str | Path) -> dict[str, list[list[str]]]:
    """Title -> table of a record, every cell as its text."""
    return {
        title: [[c if isinstance(c, str) else c["text"] for c in row] for row in rows]
        for title, rows in read_record(folder)["tables"].items()
    }


def page(folder: str | Path, names: Sequence[str] = ()) -> str:
    """The tables of a record, as Markdown; with `names`, those tables that have them all, cut down to the
    first column and the columns and rows of these names (all rows where no row is named)."""
    parts = []
    for title, (head, *rows) in tables(folder).items():
        if set(names) <= {*head, *(row[0] for row in rows)}:
            columns = [0, *(head.index(n) for n in names if n in head)] if names else range(len(head))
            kept = [row for row in rows if row[0] in names] or rows
            table = markdown_table([[row[at] for at in columns] for row in [head, *kept]])
            parts.append(f"**{title}**\n\n{table}")
    return "\n\n".join(parts)


def filled(text: str, records: str | Path) -> str:
    """A document with the tables of its blocks `record:begin NAME`, or `record:begin NAME: COLUMN OR
    ROW, ...`, taken from the records of those names.

    Raises:
        FileNotFoundError: a block names a record that is not there.
    """

    def block(match: re.Match) -> str:
        names = match[3].split(", ") if match[3] else ()
        return f"{match[1]}\n{page(Path(records) / match[2], names)}\n{END}"

    return _BLOCK.sub(block, text)
