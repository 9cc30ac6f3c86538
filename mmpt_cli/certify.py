"""Does a loss depend on what it must not? Ranks, micro-batches, order, padding, tiles, back ends, precision.

    mmpt certify
    mmpt certify GRAMLoss MMContraLoss --ranks 2
    mmpt certify my_loss.py:MarginLoss --json
    mmpt certify open_clip lightly.NTXentLoss    # of other libraries, where they are installed

Value and gradients are computed in ways that have to agree; the table holds relative differences. Bold ones
are beyond the bound: 1e-12 in float64; in float32 1e-6 for the value, 5e-6 for gradients.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmpt_cli.options import Parser

if TYPE_CHECKING:
    from mmpt.certify import Subject


def parser() -> Parser:
    """The options."""
    p = Parser("mmpt certify", __doc__)
    text = "names, FILE.py:NAME of a plugin, or another library; none: all of mmpt"
    p.add_argument("losses", nargs="*", metavar="LOSS", help=text)
    p.add_argument("--ranks", nargs="*", type=int, default=[2, 4], metavar="N", help="processes (2 4)")
    text = "also under torch.compile: inductor (default; needs a C++ compiler) or aot_eager"
    p.add_argument("--compile", nargs="?", const="inductor", choices=["inductor", "aot_eager"], help=text)
    p.shared("--json")
    p.shared("--out", metavar="FILE", help="also write the table there, in Markdown")
    return p


def chosen_by(name: str) -> list[Subject]:
    """A registered loss, that of a plugin, or those of another library."""
    from mmpt import certify

    known = {loss.partition(".")[0] for loss in certify.FOREIGN}
    if name.partition(".")[0] in known:
        return certify.foreign_subjects(name)
    return [certify.subject_of(name.rpartition(":")[2])]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 1 where something does not hold."""
    args = parser().parse_args(argv)
    from mmpt import certify
    from mmpt.registry import load_plugins

    load_plugins([name.partition(":")[0] for name in args.losses if ":" in name])
    chosen = [subject for name in args.losses for subject in chosen_by(name)] or certify.subjects()
    findings = certify.certify(chosen, args.ranks, args.compile)
    table = certify.table(findings)
    if args.out:
        Path(args.out).write_text(table + "\n", encoding="utf-8")
    failed = [finding for finding in findings if not finding.holds]
    if args.json:
        print(json.dumps([dataclasses.asdict(f) | {"holds": f.holds} for f in findings], indent=1))
    else:
        print(table)
        for f in failed:
            apart = f"value apart by {f.value:.0e}, gradients by {f.gradient:.0e}" if not f.note else f.note
            print(f"{f.loss}, {f.question}: {apart}")
    return 1 if failed else 0
