"""Train and test every split of a data set, and average: one command for UCF101 and HMDB51.

    mmpt folds projects/task/ucf101_ft.yaml
    mmpt folds projects/task/hmdb51_ft.yaml --folds 1 2 --dryrun
    mmpt folds projects/toy/raw_actions.yaml --folds 1 --device cpu

Run folders are that of the file, with `fold1`, `fold2`, ... at the end. The last checkpoint is tested by the
test file beside FILE, `test_FILE`; numbers and their mean are in folds.json above the run folders.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from mmpt_cli.options import Parser, count, speak


def parser() -> Parser:
    """The options."""
    p = Parser("mmpt folds", __doc__)
    p.add_argument("file", metavar="FILE", help="project file to train")
    p.add_argument(
        "--folds", type=count, nargs="+", default=[1, 2, 3], metavar="N", help="splits (default: 1 2 3)"
    )
    p.add_argument("--dryrun", action="store_true", help="show the training commands; run nothing")
    p.shared("--set", "--device", "--json", "--quiet")
    p.shared("--nproc")
    return p


def main(argv: Sequence[str] | None = None) -> None:
    """Train, test, print the table."""
    args = parser().parse_args(argv)
    speak(args.quiet)
    from mmpt.api.folds import train_and_test
    from mmpt.evaluators.report import text_table
    from mmpt.launch.pipeline import Request
    from mmpt.launch.torchrun import Topology

    request = Request(
        cpu=args.device == "cpu",
        overrides=tuple(args.overrides),
        topology=Topology(per_node=args.nproc),
        dryrun=args.dryrun,
    )
    found, out = train_and_test(args.file, args.folds, request, args.device)
    if args.json:
        print(json.dumps(found, indent=1))
    elif found:
        names = list(found["mean"])
        rows = [[fold, *(f"{values[name]:.4f}" for name in names)] for fold, values in found.items()]
        print(f"{text_table([['', *names], *rows])}\n\nwritten to {out}")
