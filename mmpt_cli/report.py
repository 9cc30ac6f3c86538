"""Training runs as one page: curves, validation, transport plans, project file, starts and faults.

    mmpt report runs/retri/norton
    mmpt report runs/a runs/b --out a_and_b.html
    mmpt report A=runs/retri/videoclip B=runs/retri/norton

A run is the folder of its checkpoints, perhaps with a name before it. Of several, evaluations that `mmpt
predict` wrote below their folders are compared query by query, each with the first run. The page holds all it
needs and asks nothing of the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmpt_cli.options import Parser, speak


def parser() -> Parser:
    """The options."""
    p = Parser("mmpt report", __doc__)
    p.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run, or NAME=FOLDER")
    p.add_argument(
        "--plans", type=int, default=4, metavar="N",
        help="checkpoints whose transport plan of a validation video is drawn (default: %(default)s)",
    )  # fmt: skip
    p.shared("--out", help="page to write (default: report.html in the folder of the first run)")
    p.shared("--quiet")
    return p


def main(argv: Sequence[str] | None = None) -> None:
    """Write the page."""
    args = parser().parse_args(argv)
    speak(args.quiet)
    from mmpt.pages.plans import plans_of_runs
    from mmpt.pages.report import write_report
    from mmpt.pages.runs import read_runs

    runs = read_runs(map(_named, args.runs))
    plans, notes = plans_of_runs(runs, args.plans)
    page = write_report(args.out or runs[0].folder / "report.html", runs, plans, notes)
    print(f"page: {page}")


def _named(text: str) -> tuple[str | None, Path]:
    """NAME=FOLDER, or a folder, which may hold an equals sign itself."""
    name, equals, folder = text.partition("=")
    return (name, Path(folder)) if equals and name and not Path(text).exists() else (None, Path(text))
