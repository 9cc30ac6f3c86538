"""Why is this number not that number? From a claim about a model's output to a clean number, in steps.

    mmpt audit --claim R1=47.3,R5=74.1,R10=82.9 --queries text.npy --gallery video.npy --pairs pairs.csv
    mmpt audit --claim R1=59.8 --scores run_predictions.json --pairs qrels.json --listed 1000 --out audit

Give every number that the paper prints: one alone fits several explanations. docs/audit.md says more.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from mmpt_cli.options import Parser, count

INPUTS = {
    "scores": "matrix of queries x gallery: npz, npy, pt, safetensors, csv, mteb predictions, VLM2Vec ranks",
    "queries": "embeddings of the queries instead: npz, npy, pt, safetensors, VLM2Vec",
    "gallery": "embeddings of the gallery",
    "pairs": "item of each query: csv query_id,gallery_id[,caption]; mteb qrels; VLM2Vec info.jsonl",
    "gallery-ids": "id of each column, one a line",
    "listed": "the published test list: file of ids, or their number",
    "claimed-list": "the items that the claim was made about, if fewer: file of ids, or their number",
    "reranked": "scores of a second stage, queries x gallery",
    "bank": "embeddings (or scores) of further queries, for QB-norm",
    "judgements": "further right items: csv query_id,gallery_id",
}


def parser() -> Parser:
    """The options."""
    p = Parser("mmpt audit", __doc__)
    text = "R1=47.3 or R1=47.3,R5=74.1,R10=82.9 (percent; nDCG10, MR): more numbers tell more"
    p.add_argument("--claim", required=True, metavar="NUMBERS", help=text)
    for name, meaning in INPUTS.items():
        p.add_argument(f"--{name}", metavar="FILE", help=meaning)
    text = "declared for the embeddings (default: %(default)s)"
    p.add_argument("--similarity", choices=["cosine", "dot"], default="cosine", help=text)
    text = "rows are captions, columns clips, of the videos that the pairs and gallery ids name"
    p.add_argument("--measure", choices=["DTW", "OTAM"], default="", help=text)
    p.add_argument("--samples", type=count, default=2000, help="bootstrap samples (default: %(default)s)")
    p.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: %(default)s)")
    p.shared("--out", metavar="FOLDER", help="write audit.txt, audit.json and audit.png")
    p.shared("--json")
    return p


def main(argv: Sequence[str] | None = None) -> None:
    """Print the audit, and write it where asked."""
    args = vars(parser().parse_args(argv))
    claim, samples, seed, out, as_json = (args.pop(k) for k in ("claim", "samples", "seed", "out", "json"))
    from mmpt.audit import Claim, audit, read_evidence, text, to_dict, write_report

    found = audit(read_evidence(**args), Claim.parse(claim), samples, seed)
    print(json.dumps(to_dict(found), indent=1) if as_json else text(found).rstrip())
    if out:
        write_report(found, out)
