"""Prints what became of damaged files of every kind, as a table: python -m tests.fuzz [mutations of each]."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.fuzz.harness import FAULTS, campaign
from tests.fuzz.readers import READERS


def main() -> int:
    """The number of faults, at most 1."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    total: Counter[str] = Counter()
    print("| file | mutations | same | error in a line | warned | silent | faults |")
    print("|---|---|---|---|---|---|---|")

    def row(name: str, counts: Counter[str]) -> None:
        shown = [sum(counts.values()), *(counts[key] for key in ("same", "clean", "warned", "silent"))]
        faults = ", ".join(f"{counts[fault]} {fault}" for fault in FAULTS if counts[fault]) or "0"
        print(f"| {name} | {' | '.join(map(str, shown))} | {faults} |", flush=True)

    for reader in READERS:
        with tempfile.TemporaryDirectory() as folder:
            counts, examples = campaign(reader, Path(folder), n)
        row(f"{reader.name}{' *' if reader.sealed else ''}", counts)
        total += counts
        for outcome, detail in examples.items():
            if outcome in FAULTS or reader.sealed:
                print(f"{reader.name}: {outcome}: {detail}", file=sys.stderr)
    row("all", total)
    return int(any(total[fault] for fault in FAULTS))


if __name__ == "__main__":
    sys.exit(main())
