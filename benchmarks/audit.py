"""The audit against planted departures of known truth: is the right one named, are honest claims left alone,
is the rest exact?

    python benchmarks/audit.py [--cases 20] [--seed 1] [--records FILE]     # an hour on two idle cores
    python benchmarks/audit.py --only speed

`benchmarks/audit_worlds.py` makes the test sets, writes the files and computes claims and truths without
importing `mmpt`; this file only reads the files through the public interface. Each test set is audited with
four claims: the planted one (R@1, R@5, R@10 to one decimal), the planted R@1 alone, the honest one, and that
of another model. FILE keeps one record a test set; a second run goes on where it stopped.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import audit_worlds as worlds

from benchmarks.measured import command_line, publish
from mmpt.audit import Claim, audit, read_evidence
from mmpt.audit.protocol import Scorer

PRINTED = "{:.1f}"
CLAIMS = {
    "planted": worlds.METRICS,
    "planted, R@1 alone": ("R1",),
    "honest": worlds.METRICS,
    "honest, R@1 alone": ("R1",),
    "foreign": worlds.METRICS,
}
ASKED = {  # what a claim shows, and the bar
    "planted": ("the planted departure is named first, claim of R@1, R@5, R@10", "95 %"),
    "planted, R@1 alone": ("the same from R@1 alone", ""),
    "honest": ("an honest claim is accused", "at most 2 %"),
    "honest, R@1 alone": ("the same from R@1 alone", ""),
    "foreign": ("a claim of another model is accused instead of *not explained*", ""),
}


def run_case(trap: str, index: int, seed: int) -> dict[str, Any]:
    """Audit one test set with each of its claims."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        case = worlds.make_case(trap, index, seed, Path(folder))
        evidence = read_evidence(**case.options)
        scorer = Scorer(evidence, worlds.METRICS)
        record = {
            "trap": trap,
            "index": index,
            "variant": case.variant,
            "clean": case.clean,
            "truths": case.gallery,
            "claims": {},
        }
        for kind, names in CLAIMS.items():
            values = case.claims.get(kind.partition(",")[0])
            if values is not None:
                text = ",".join(f"{name}={PRINTED.format(values[name])}" for name in names)
                found = audit(evidence, Claim.parse(text), n_samples=200, scorer=scorer)
                record["claims"][kind] = {
                    "claim": text,
                    "families": [departure.family for departure in found.named],
                    "texts": [departure.text for departure in found.named],
                    "probability": found.probability,
                    "unexplained": found.bars[0].points,
                    "off": found.claim.values["R1"]
                    + sum(bar.points for bar in found.bars)
                    - found.clean["R1"],
                    "clean": found.clean,
                }
        record |= {"queries": len(evidence.query_item), "items": len(evidence.items)}
    return record


def run_all(
    traps: Iterable[str], cases: int, seed: int, path: Path | None, workers: int
) -> list[dict[str, Any]]:
    """Records of all cases, those in `path` first."""
    done = [json.loads(line) for line in path.read_text().splitlines()] if path and path.exists() else []
    known = {(record["trap"], record["index"]) for record in done}
    todo = [(trap, index) for index in range(cases) for trap in traps if (trap, index) not in known]
    with ProcessPoolExecutor(workers) as pool:
        for future in as_completed([pool.submit(run_case, trap, index, seed) for trap, index in todo]):
            done.append(future.result())
            if path:
                with open(path, "a") as file:
                    file.write(json.dumps(done[-1]) + "\n")
    return [record for record in done if record["trap"] in set(traps) and record["index"] < cases]


def share(hits: list[bool]) -> str:
    """k of n, with the 95 % Wilson interval."""
    k, n, z = sum(hits), max(len(hits), 1), 1.96
    middle, half = (k / n + z * z / 2 / n), z * np.sqrt(k / n * (1 - k / n) / n + z * z / 4 / n**2)
    low, high = (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)
    return f"{k} of {n} = {100 * k / n:.1f} % [{100 * max(low, 0):.1f}, {100 * min(high, 1):.1f}]"


def named_first(record: dict[str, Any], kind: str) -> str:
    return next(iter(record["claims"][kind]["families"]), "")


def right(record: dict[str, Any], kind: str) -> bool:
    """The planted departure first; nothing for an honest claim or one of another model."""
    return named_first(record, kind) == (record["trap"] if kind.startswith("planted") else "")


def report(records: list[dict[str, Any]]) -> dict[str, list[list[Any]]]:
    """Tables: the bar and what lies beside it."""
    single = [record for record in records if "+" not in record["trap"]]
    planted = [record["claims"]["planted"] for record in single if right(record, "planted")]
    rows = [["what", "asked", "found [95 % interval]"]]
    for kind, (what, bar) in ASKED.items():
        hits = [right(record, kind) for record in single]
        rows.append([what, bar, share(hits if kind.startswith("planted") else [not hit for hit in hits])])
    off = max(abs(found["off"]) for found in planted)
    rows.append(["bars add up to claim minus clean number", "0.1 points", f"off by at most {off:.1e} points"])
    left = share([abs(found["unexplained"]) <= 0.1 for found in planted])
    rows.append(["what no bar explains is within 0.1 points", "", left])
    exact = [record for record in single if record["trap"] != "gallery"]
    wrong = max(
        abs(r["claims"]["planted"]["clean"][n] - r["clean"][n]) for r in exact for n in worlds.METRICS
    )
    rows.append(["clean numbers against the truth", "", f"off by at most {wrong:.3f} points"])
    rows += gallery([record for record in single if record["trap"] == "gallery"])
    paired = [record for record in records if "+" in record["trap"]]
    both = [set(r["claims"]["planted"]["families"]) == set(r["trap"].split("+")) for r in paired]
    rows.append(["two departures at once, both named", "", share(both)])
    by_trap = [["departure", *CLAIMS, "named instead"]]
    for trap in worlds.TRAPS:
        some = [record for record in single if record["trap"] == trap]
        cells = [f"{sum(right(record, kind) for record in some)} of {len(some)}" for kind in CLAIMS]
        missed = [record for record in some if not right(record, "planted")]
        instead = [f"{named_first(r, 'planted') or 'nothing'} for {r['variant']}" for r in missed]
        by_trap.append([trap, *cells, "; ".join(instead)])
    title = f"{len(single)} test sets, {len({record['trap'] for record in single})} departures"
    return {title: rows, "Right, by departure": by_trap}


def gallery(records: list[dict[str, Any]]) -> list[list[str]]:
    """Predicted recall of the whole list, where the files hold a part of it."""
    asked, rows = [record for record in records if record["variant"].startswith("file lacks")], []
    for name, truth in (
        ("the expectation over galleries, same queries", lambda r, n: r["truths"][f"expected {n}"]),
        ("the list itself, same queries", lambda r, n: r["truths"][f"same queries {n}"]),
        ("the list itself, with the queries that the file lacks", lambda r, n: r["clean"][n]),
    ):
        off = {
            n: np.abs([r["claims"]["planted"]["clean"][n] - truth(r, n) for r in asked])
            for n in worlds.METRICS
        }
        texts = [f"{n} {x.mean():.2f}, at most {x.max():.2f}" for n, x in off.items()]
        rows.append([f"recall at another gallery size against {name}", "0.5 points", "; ".join(texts)])
    return rows


def speed() -> dict[str, list[list[Any]]]:
    """A table: one audit of 1000 x 1000 with everything beside it."""
    torch.set_num_threads(2)
    rows: list[list[Any]] = [["departure", "claim", "clock, s", "CPU, s"]]
    for trap in ("postprocessing", "rerank"):
        with tempfile.TemporaryDirectory() as folder:
            index = 0
            while True:
                case = worlds.make_case(trap, index, 99, Path(folder))
                evidence = read_evidence(**case.options)
                if len(evidence.items) == len(evidence.query_item) == 1000:
                    break
                index += 1
            for kind in ("planted", "honest", "foreign"):
                claim = Claim.parse(
                    ",".join(f"{name}={PRINTED.format(value)}" for name, value in case.claims[kind].items())
                )
                start, cpu = time.perf_counter(), time.process_time()
                audit(evidence, claim)
                rows.append([trap, kind, time.perf_counter() - start, time.process_time() - cpu])
    return {"An audit of 1000 x 1000; asked: 60 s": rows}


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--cases", type=int, default=20, help="test sets of each departure")
    parser.add_argument("--pairs", type=int, default=5, help="test sets of each pair of departures")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--records", type=Path, help="one JSON line a test set, to go on with")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", choices=["bar", "speed"])
    args = parser.parse_args()
    if args.only != "speed":
        records = run_all(worlds.TRAPS, args.cases, args.seed, args.records, args.workers)
        pairs = [f"similarity+{trap}" for trap in worlds.PAIRED]
        records += run_all(pairs, args.pairs, args.seed, args.records, args.workers)
        publish(args.record, report(records), timed=False)
    if args.only != "bar":
        publish(args.record and f"{args.record}_speed", speed(), setting="2 threads")


if __name__ == "__main__":
    main()
