"""What a hypothesis of GDT attracts and repels.

    mmpt gdt 8 --world-size 2 --batch 3
    mmpt gdt v_reversal_i_shift --scope released --json

P is the positive of a query, a digit how often a negative counts, a dot a key that is left out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from mmpt_cli.options import Parser, count

SCOPES = ("global", "rank", "released")


def parser() -> Parser:
    """The options."""
    p = Parser("mmpt gdt", __doc__)
    p.add_argument("hypothesis", help="1 to 9, or a name such as v_reversal_i_shift")
    p.add_argument("--world-size", "--world", type=count, default=1, metavar="N", help="processes")
    p.add_argument("--batch", type=count, default=2, metavar="N", help="samples on each process")
    p.add_argument("--scope", choices=SCOPES, default="global", help="which negatives count")
    p.shared("--json")
    return p


def main(argv: Sequence[str] | None = None) -> None:
    """Print terms and how often each key counts."""
    args = parser().parse_args(argv)
    from mmpt.ops.gdt import GDTHypothesis, mask_grid

    hypothesis = GDTHypothesis.parse(args.hypothesis)
    masks = hypothesis.masks(args.world_size, args.batch, args.scope)
    if args.json:
        listed = [{**mask, "pos": mask["pos"].tolist(), "mult": mask["mult"].tolist()} for mask in masks]
        print(json.dumps(listed))
        return
    print(hypothesis.describe())
    print("\nrows: queries (rank.sample); columns: keys of the other modality")
    print("P: positive; a digit: how often a negative counts; .: left out")
    for mask in masks:
        print("\n" + mask_grid(mask, args.world_size, args.batch))
