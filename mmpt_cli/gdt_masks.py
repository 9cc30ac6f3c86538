"""Shows what a GDT hypothesis attracts and repels.

python -m mmpt_cli.gdt_masks 8 --world 2 --batch 3
python -m mmpt_cli.gdt_masks v_reversal_i_shift --scope rank_asis --json
"""

from __future__ import annotations

import argparse
import json

from mmpt.ops.gdt import SCOPES, VIEWS, GDTHypothesis


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="mmpt_cli.gdt_masks", description="Print terms and key multiplicities of a GDT hypothesis."
    )
    parser.add_argument("hypothesis", help="1 to 9, or a name such as v_reversal_i_shift")
    parser.add_argument("--world", type=int, default=1, help="processes")
    parser.add_argument("--batch", type=int, default=2, help="samples on each process")
    parser.add_argument("--scope", choices=SCOPES, default="global", help="which negatives count")
    parser.add_argument("--json", action="store_true", help="print the arrays as JSON")
    args = parser.parse_args(argv)
    try:
        hypothesis = GDTHypothesis.parse(args.hypothesis)
    except ValueError as error:
        parser.error(str(error))
    if min(args.world, args.batch) < 1:
        parser.error("--world and --batch must be at least 1.")
    masks = hypothesis.masks(args.world, args.batch, args.scope)
    if args.json:
        print(
            json.dumps(
                [{**mask, "pos": mask["pos"].tolist(), "mult": mask["mult"].tolist()} for mask in masks]
            )
        )
        return
    print(hypothesis.describe())
    print("\nrows: queries (rank.sample); columns: keys of the other modality")
    print("P: positive; a digit: how often a negative counts; .: left out")
    for mask in masks:
        print("\n" + grid(mask, args.world, args.batch))


def grid(mask: dict, world: int, batch: int) -> str:
    """One directed comparison as text; keys are grouped by view, then by rank."""
    modality = ("first", "second")[mask["query_modality"]]
    lines = [f"term {mask['term']}: {modality} modality, view {VIEWS[mask['query_view']]}"]
    width = world * batch + world - 1
    lines.append(" " * 6 + "  ".join(f"{name:<{width}}" for name in VIEWS))
    for query, (positive, row) in enumerate(zip(mask["pos"].tolist(), mask["mult"].tolist(), strict=True)):
        symbols = ["P" if key == positive else str(count) if count else "." for key, count in enumerate(row)]
        ranks = ["".join(symbols[start : start + batch]) for start in range(0, len(symbols), batch)]
        views = [" ".join(ranks[start : start + world]) for start in range(0, len(ranks), world)]
        lines.append(f"{query // batch:>2}.{query % batch:<2} " + "  ".join(views))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
