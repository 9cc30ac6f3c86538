"""Copy a project file that comes with mmpt, to edit: one that includes it, or with --whole all its keys.

    mmpt copy projects/retri/norton/how2_pretrain.yaml mine.yaml
    mmpt copy projects/toy/norton.yaml mine.yaml --whole

`mmpt list projects` shows what there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmpt_cli.options import Parser


def parser() -> Parser:
    """The options."""
    p = Parser("mmpt copy", __doc__)
    p.add_argument("source", metavar="FILE", help="the project file")
    p.add_argument("target", type=Path, metavar="NEW", help="the file to write; it must not be there yet")
    p.add_argument(
        "--whole", action="store_true", help="all keys with includes merged, in place of an include"
    )
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Write the file."""
    args = parser().parse_args(argv)
    from mmpt.config.project_files import copy_project

    copy_project(args.source, args.target, args.whole)
    print(f"{args.target} written; see what it says in full: mmpt config {args.target}")
    return 0
