"""What every Triton kernel takes of a GPU that need not be there: the table of docs/kernels.md.

python benchmarks/kernels.py --record kernels        # with Triton installed; some minutes
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.measured import command_line, publish  # noqa: E402


def printed(*words: str) -> list[dict]:
    """The lines of `tests.ops.kernel_budgets`."""
    command = [sys.executable, "-m", "tests.ops.kernel_budgets", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return [json.loads(line) for line in done.stdout.splitlines()]


def span(values: list[float]) -> str:
    """Least to most."""
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--capabilities", nargs="+", default=["80", "90"])
    args = parser.parse_args()
    launches, sizes = printed(*args.capabilities), printed("memory")
    head = [
        f"{of} on {int(c) / 10:.1f}"
        for c in args.capabilities
        for of in ("registers", "shared KiB", "spilt bytes")
    ]
    rows = [["kernel", "launches", *head]]
    for kernel in dict.fromkeys(launch["kernel"] for launch in launches):
        cells: list[str] = []
        for capability in map(int, args.capabilities):
            own = [x for x in launches if (x["kernel"], x["capability"]) == (kernel, capability)]
            cells += [span([x["registers"] for x in own]), span([x["shared"] // 1024 for x in own])]
            cells.append(span([x["stack"] for x in own]))
        rows.append([kernel, len(own), *cells])
    memory = [["call", "MiB above inputs and gradients", "asked"]]
    for size in sizes:
        clips = f"late interaction, {size.get('clips')} clips, {size.get('precision')}"
        call = clips if "clips" in size else f"GRAM contrast, {size['anchors']} x {size['anchors']}"
        memory.append([call, size["bytes"] / 2**20, f"{size['limit'] // 2**20}"])
    tables = {"Kernels, compiled by compute capability": rows, "Memory of large calls": memory}
    publish(args.record, tables, launches + sizes, f"Triton {metadata.version('triton')}", timed=False)


if __name__ == "__main__":
    main()
