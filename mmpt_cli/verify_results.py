"""Derive every cell of the published tables again from the numbers of single queries.

    mmpt verify-results                       # docs/records, README.md and docs/*.md of this folder
    mmpt verify-results runs/toy/record       # one record
    mmpt verify-results runs/toy/record --rerun 3    # and three cells anew, from the weights of the record

Each record is a folder of numbers per query, configs and checksums. Files that changed since they were
sealed, cells that their queries do not give, and documents whose tables are not those of the records are
named; the exit code is then 1. `--write` puts the tables of the records into the documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmpt_cli.options import Parser, count

RECORDS = Path("docs/records")


def parser() -> Parser:
    """The options."""
    p = Parser("mmpt verify-results", __doc__)
    p.add_argument("records", nargs="*", type=Path, help="folders of records (default: all of docs/records)")
    p.add_argument("--write", action="store_true", help="write the tables of docs/records into the documents")
    text = "evaluate the models behind K cells of each record again; weights and data must be here"
    p.add_argument("--rerun", type=count, default=0, metavar="K", help=text)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run it."""
    args = parser().parse_args(argv)
    from mmpt.evaluators import records as proof

    folders = args.records or sorted(path.parent for path in RECORDS.glob(f"*/{proof.RECORD}"))
    if not folders:
        raise SystemExit(f"error: no records in {RECORDS}; name a folder, or go to the checkout.")
    wrong, checked = [], 0
    for folder in folders:
        found = proof.problems(folder)
        wrong += found
        checked += 0 if found else sum(1 for _ in proof.cells(folder))
    if args.rerun and not wrong:
        from mmpt.demo.rerun import rerun

        for folder in folders:
            for line, problem in rerun(folder, args.rerun):
                print(line)
                wrong += [problem] if problem else []
    documents = [] if args.records or wrong else [Path("README.md"), *sorted(Path("docs").glob("*.md"))]
    for path in documents:
        text = path.read_text(encoding="utf-8")
        new = proof.filled(text, RECORDS)
        if new != text and args.write:
            path.write_text(new, encoding="utf-8")
        elif new != text:
            wrong.append(f"{path}: its tables are not those of the records. Run: mmpt verify-results --write")
    for line in wrong:
        print(line)
    print(
        f"{len(folders)} records, {checked} cells derived again, {len(documents)} documents: "
        f"{'all agree' if not wrong else f'{len(wrong)} problems'}"
    )
    return 1 if wrong else 0
