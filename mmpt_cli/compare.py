"""Two evaluations of the same test set: is the difference more than the draw of queries?

    mmpt compare runs/a/checkpoint_best runs/b/checkpoint_best

A and B are folders written by `mmpt predict`. Both are read at the same resampled queries, so what makes a
query hard for both cancels.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from mmpt_cli.options import Parser, count


def parser() -> Parser:
    """The options."""
    p = Parser("mmpt compare", __doc__)
    p.add_argument("a", help="folder of run A")
    p.add_argument("b", help="folder of run B")
    p.add_argument("--samples", type=count, default=10_000, help="bootstrap samples (default: %(default)s)")
    p.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: %(default)s)")
    p.add_argument(
        "--changed", type=int, default=10, help="most changed queries to list (default: %(default)s)"
    )
    p.shared("--json")
    return p


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables."""
    args = parser().parse_args(argv)
    from mmpt.evaluators.compare import compare, load_queries, most_changed, same_queries
    from mmpt.evaluators.report import text_table

    a, b = same_queries(load_queries(args.a), load_queries(args.b))
    measures, changed = compare(a, b, args.samples, args.seed), most_changed(a, b, args.changed)
    if args.json:
        tables = {"measures": measures, "changed": changed}
        print(json.dumps({name: [dict(zip(rows[0], row, strict=True)) for row in rows[1:]] for name, rows in
                          tables.items() if rows}, indent=1))  # fmt: skip
        return
    print(text_table(measures))
    if len(changed) > 1:
        print(f"\nmost changed queries:\n{text_table(changed)}")
