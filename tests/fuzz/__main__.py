"""What became of damaged files of every kind: the table of docs/security.md.

python -m tests.fuzz 300 --record fuzz
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.measured import command_line, publish
from tests.fuzz.harness import FAULTS, campaign
from tests.fuzz.readers import READERS

HEAD = ["file", "mutations", "same", "error in a line", "warned", "silent", "faults"]


def row(name: str, counts: Counter[str]) -> list[str]:
    """A line of the table."""
    shown = [sum(counts.values()), *(counts[key] for key in ("same", "clean", "warned", "silent"))]
    faults = ", ".join(f"{counts[fault]} {fault}" for fault in FAULTS if counts[fault]) or "0"
    return [name, *map(str, shown), faults]


def main() -> int:
    """The number of faults, at most 1."""
    parser = command_line(__doc__, prog="python -m tests.fuzz")
    parser.add_argument("mutations", type=int, nargs="?", default=300, help="of each file")
    args = parser.parse_args()
    total: Counter[str] = Counter()
    rows = [HEAD]
    for reader in READERS:
        with tempfile.TemporaryDirectory() as folder:
            counts, examples = campaign(reader, Path(folder), args.mutations)
        rows.append(row(f"{reader.name}{' *' if reader.sealed else ''}", counts))
        print(" | ".join(rows[-1]), file=sys.stderr)
        total += counts
        for outcome, detail in examples.items():
            if outcome in FAULTS or reader.sealed:
                print(f"{reader.name}: {outcome}: {detail}", file=sys.stderr)
    publish(args.record, {"Damaged files": [*rows, row("all", total)]}, timed=False)
    return int(any(total[fault] for fault in FAULTS))


if __name__ == "__main__":
    sys.exit(main())
