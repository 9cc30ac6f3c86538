"""Find everything that is wrong with project files: every problem at once, with file, key and nearest name.

    mmpt check projects/retri/norton/how2_pretrain.yaml
    mmpt check mine.yaml --set loss.betta=0.3
    mmpt check projects/*/*.yaml --json

Starts nothing and reads no data (`mmpt data verify` does). Exit code 1 where something is wrong.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from mmpt_cli.options import Parser


def parser() -> Parser:
    """The options."""
    p = Parser("mmpt check", __doc__)
    p.add_argument("files", nargs="+", metavar="FILE", help="project files")
    p.shared("--set", "--json")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Print the problems; 1 where there are any."""
    args = parser().parse_args(argv)
    from mmpt import check

    found = {path: check(path, args.overrides) for path in args.files}
    if args.json:
        listed = {path: [dataclasses.asdict(p) for p in problems] for path, problems in found.items()}
        print(json.dumps(listed, indent=1))
    else:
        for path, problems in found.items():
            for problem in problems:
                print(f"{problem.level}: {problem}")
            if not any(problem.level == "error" for problem in problems):
                print(f"{path}: nothing wrong")
    return int(any(problem.level == "error" for problems in found.values() for problem in problems))
