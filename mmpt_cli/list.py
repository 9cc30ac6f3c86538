"""Projects, losses, models, backbones, datasets, metrics: a line each.

    mmpt list losses
    mmpt list projects norton
    mmpt list metrics --json

These are the names that project files can use; --json gives them to programs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from mmpt_cli.options import Parser

KINDS = ("projects", "losses", "models", "backbones", "datasets", "metrics")


def parser() -> Parser:
    """The options."""
    p = Parser("mmpt list", __doc__)
    p.add_argument("kind", choices=KINDS, metavar="KIND", help=", ".join(KINDS))
    p.add_argument("word", nargs="?", default="", help="only lines with this word")
    p.shared("--json")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Print the lines."""
    args = parser().parse_args(argv)
    from mmpt.api import catalogue

    found = {
        name: about
        for name, about in catalogue(args.kind).items()
        if args.word.lower() in f"{name} {about}".lower()
    }
    if args.json:
        print(json.dumps(found, indent=1))
        return 0
    width = max(map(len, found), default=0)
    print("\n".join(f"{name:<{width}}  {about}".rstrip() for name, about in found.items()))
    return 0 if found else 1
