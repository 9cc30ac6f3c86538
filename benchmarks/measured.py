"""The tables of a benchmark: printed, and kept as a record, from which the pages of docs are filled.

    python benchmarks/gram.py --record gram     # writes docs/records/gram
    mmpt verify-results --write                 # fills the pages

A title says the processor, the threads and the load of the machine while it was measured.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mmpt.evaluators import records
from mmpt.evaluators.report import markdown_table

ROOT = Path(__file__).resolve().parent.parent
RECORDS = ROOT / "docs/records"
Step = Callable[[], object]
_LOAD = os.getloadavg()[0]  # before the benchmark adds to it


def command_line(page: str | None, prog: str | None = None) -> argparse.ArgumentParser:
    """A benchmark's command line, described by its docstring, with the option that all of them have."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=prog, description=page, formatter_class=formatter)
    parser.add_argument("--record", metavar="NAME", help="keep the tables as docs/records/NAME")
    return parser


def publish(
    name: str | None,
    tables: Mapping[str, Sequence[Sequence[Any]]],
    numbers: Any = None,
    setting: str = "",
    timed: bool = True,
) -> None:
    """Print tables, and keep them where they have a name.

    Args:
        name: of the record; None: nothing is kept.
        tables: title -> rows, the first the head; a number becomes a text of three digits.
        numbers: what the tables were made from, as JSON takes it.
        setting: what the title says beside processor and load, as the number of threads.
        timed: whether the numbers depend on the machine.
    """
    load = sorted((_LOAD, os.getloadavg()[0]))
    where = [setting, records.processor(), f"load {load[0]:.0f} to {load[1]:.0f}"] if timed else [setting]
    filled = {"; ".join(filter(None, (title, *where))): _texts(rows) for title, rows in tables.items()}
    for title, rows in filled.items():
        print(f"\n**{title}**\n\n{markdown_table(rows)}", flush=True)
    if name:
        about = {
            "command": _command(),
            "made": datetime.now(timezone.utc).date().isoformat(),
            "machine": records.machine(),
        } | ({"load": load} if timed else {})
        records.write_record(RECORDS / name, filled, {"measured": numbers}, {}, about)


def seconds(call: Step, clock: Callable[[], float] = time.process_time) -> float:
    """Time of a call, of this process or by another clock."""
    start = clock()
    call()
    return clock() - start


def each_time_another(call: Callable[[Any], object], inputs: Iterable[Any]) -> Step:
    """A step for `interleaved` that calls with one input after the other, round and round."""
    return functools.partial(next, map(call, itertools.cycle(inputs)))


def interleaved(steps: Mapping[str, Step], rounds: int) -> dict[str, tuple[float, float]]:
    """Median CPU and wall milliseconds of each step.

    The steps take turns, so that a busy machine slows all alike; the first round warms up and is not counted.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            cpu, wall = time.process_time(), time.perf_counter()
            step()
            if number:
                times[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    return {
        name: tuple(1e3 * statistics.median(column) for column in zip(*values, strict=True))
        for name, values in times.items()
    }


def status_mib(field: str) -> float:
    """A size that the system tells of this process: VmRSS, or VmHWM, the peak of it. The peak that getrusage
    tells may be inherited from the parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def threads(n: int) -> str:
    """How many, as a title says it."""
    return f"{n} thread{'s' * (n != 1)}"


def of_rows(rows: Iterable[Mapping[str, Any]]) -> list[list[Any]]:
    """A table of rows that name their columns."""
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [names, *([row.get(name, "") for name in names] for row in rows)]


def _command() -> str:
    """What was run, as one types it in a checkout; of files elsewhere the name alone."""
    path = Path(sys.argv[0]).resolve().relative_to(ROOT)
    program = ["-m", ".".join(path.parent.parts)] if path.name == "__main__.py" else [str(path)]
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return " ".join(["python", *program, *words])


def _texts(rows: Sequence[Sequence[Any]]) -> list[list[str]]:
    return [[_text(cell) for cell in row] for row in rows]


def _text(cell: Any) -> str:
    """Three digits of a number; what is no number as it is."""
    if not isinstance(cell, float):
        return f"{cell:,}" if isinstance(cell, int) else str(cell)
    return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.3g}"
