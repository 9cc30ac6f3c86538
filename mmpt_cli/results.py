"""Show a record of results, export it, or put results of mteb beside it.

    mmpt results docs/records/main_job
    mmpt results docs/records/main_job --row "small towers" --export model-index > index.json
    mmpt results docs/records/main_job --test vtt --mteb MSRVTTT2V.json --gallery 879

Formats: model-index (a model card of the Hugging Face hub), mteb, every-eval-ever. Recall falls with the
size of the gallery, so that of mteb's set is named beside it, or said to be unknown.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mmpt_cli.options import Parser, count

FORMATS = ("model-index", "mteb", "every-eval-ever")


def parser() -> Parser:
    """The options."""
    p = Parser("mmpt results", __doc__)
    p.add_argument("record", type=Path, help="folder of a record")
    p.add_argument("--row", help="of the record, to be exported")
    p.add_argument("--export", choices=FORMATS, help="print that row in this format")
    p.add_argument("--name", help="of the model (default: the row)")
    p.add_argument("--test", help="of the record, to stand beside mteb")
    p.add_argument("--mteb", type=Path, help="result file of mteb")
    p.add_argument("--gallery", type=count, help="items in the gallery of mteb's set")
    return p


def main(argv: Sequence[str] | None = None) -> None:
    """Run it."""
    p = parser()
    args = p.parse_args(argv)
    if bool(args.export) != bool(args.row):
        p.error("--export and --row go together.")
    if bool(args.mteb) != bool(args.test):
        p.error("--mteb and --test go together.")
    from mmpt.evaluators import exchange, records
    from mmpt.evaluators.report import text_table

    if args.export:
        print(
            json.dumps(exchange.FORMATS[args.export](args.record, args.row, args.name or args.row), indent=1)
        )
    elif args.mteb:
        print(text_table(exchange.beside(args.record, args.test, {args.mteb: args.gallery})))
    else:
        print(records.page(args.record))
