"""Does a loss depend on what it must not depend on? Ranks, order, padding, tiles, back ends, precision.

    mmpt certify
    mmpt certify GRAMLoss MMContraLoss --ranks 2
    mmpt certify my_loss.py:MarginLoss --json

Value and gradients are computed in ways that have to agree; the table holds relative differences. Bold ones
are beyond the bound: 1e-12 in float64; in float32 1e-6 for the value, 5e-6 for gradients.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from mmpt_cli.options import Parser


def parser() -> Parser:
    """The options."""
    p = Parser("mmpt certify", __doc__)
    p.add_argument("losses", nargs="*", metavar="LOSS", help="names, or FILE.py:NAME of a plugin; none: all")
    p.add_argument("--ranks", nargs="*", type=int, default=[2, 4], metavar="N", help="processes (2 4)")
    p.shared("--json")
    p.shared("--out", metavar="FILE", help="also write the table there, in Markdown")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 1 where something does not hold."""
    args = parser().parse_args(argv)
    from mmpt import certify
    from mmpt.registry import load_plugins

    load_plugins([name.partition(":")[0] for name in args.losses if ":" in name])
    names = [name.rpartition(":")[2] for name in args.losses]
    chosen = [certify.subject_of(name) for name in names] or certify.subjects()
    findings = certify.certify(chosen, args.ranks)
    table = certify.table(findings)
    if args.out:
        Path(args.out).write_text(table + "\n", encoding="utf-8")
    failed = [finding for finding in findings if not finding.holds]
    if args.json:
        print(json.dumps([dataclasses.asdict(f) | {"holds": f.holds} for f in findings], indent=1))
    else:
        print(table)
        print("\n".join(f"{f.loss}, {f.question}: {f.note}" for f in failed if f.note))
    return 1 if failed else 0
