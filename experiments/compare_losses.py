"""Train each loss from the same start, for the same updates and seeds, on the synthetic data, and print one
table.

    python -m experiments.compare_losses projects/toy/compare.yaml
    python -m experiments.compare_losses projects/toy/compare.yaml --report  # the table of what is there
    python -m experiments.compare_losses projects/toy/compare.yaml --docs docs/compare_losses.md

Seeds come last: as soon as the first seed is through, there is a table of all losses and all noises. What is
done is not done again, so a run that was stopped goes on, and a list that grew is filled up. Writes a record,
from which every number of the table is derived again, and a figure. They go into the output folder; with
`--docs` the record goes into `records` beside the page, which `mmpt verify-results --write` then fills. What
a comparison file can say stands in experiments/comparison.py.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from multiprocessing.context import ForkServerContext
from pathlib import Path

from experiments import training_process
from experiments.compare_losses_report import write_report
from experiments.comparison import Comparison, Run, runs
from experiments.comparison_tests import evaluate, step_costs
from mmpt.demo.toy_runs import claim, finish
from mmpt.launch.local import LocalJob
from mmpt.synthetic.build import build_world
from mmpt.utils.files import atomic_write, file_sha256
from mmpt.utils.log import short_errors


def perform(run: Run, server: ForkServerContext) -> bool:
    """Train and evaluate, unless both are done.

    Returns:
        Whether there was anything to do.

    Raises:
        SystemExit: training failed; shows the end of its log.
    """
    settings = run.settings()
    if not claim(run.folder, settings):
        return False
    log = run.folder / "train.log"
    job = LocalJob(run.entry.project, "local_single", overrides=run.overrides())
    code, peak_mib = training_process.start(server, job.train_words(), log).wait()
    if code:
        end = log.read_text().splitlines()[-15:]
        raise SystemExit(
            "\n".join([*end, f"error: {run.folder}: training ended with exit code {code}; see {log}."])
        )
    measures = [measure for head in run.comparison.columns for measure in run.comparison.measures(head)]
    values, queries = evaluate(run.comparison.test_entries, run.checkpoint, run.data, measures)
    about = {"row": run.row, "noise": run.noise, "seed": run.seed, "peak_mib": peak_mib}
    about |= {"weights": file_sha256(run.checkpoint), **settings}
    with atomic_write(run.folder / "results.json", "w") as file:
        json.dump({**about, "values": values, "queries": queries}, file, indent=1)
    finish(run.folder, settings)
    return True


def costs(comparison: Comparison) -> dict[str, float]:
    """Milliseconds of CPU time per step of each row, measured once and kept."""
    path = Path(comparison.out) / "costs.json"
    kept = json.loads(path.read_text()) if path.is_file() else {}
    if set(kept) != set(comparison.rows):
        data = Path(comparison.data) / comparison.world(comparison.noise[0])[0]
        kept = step_costs({row: entry.config(data) for row, entry in comparison.rows.items()})
        with atomic_write(path, "w") as file:
            json.dump(kept, file)
    return kept


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("comparison", help="comparison file, e.g. projects/toy/compare.yaml")
    parser.add_argument(
        "--report", action="store_true", help="only write the table of the runs that are done"
    )
    parser.add_argument("--docs", type=Path, metavar="PAGE", help="write record and figure for this page")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    short_errors()
    comparison = Comparison.load(args.comparison)
    plan = list(runs(comparison))
    if not args.report:
        for name, settings in map(comparison.world, comparison.noise):
            build_world(Path(comparison.data) / name, settings)
        server = training_process.server()
        for number, run in enumerate(plan, start=1):
            begin = time.perf_counter()
            done = perform(run, server)
            print(
                f"{number}/{len(plan)} {run.folder}: "
                f"{f'{time.perf_counter() - begin:.0f} s' if done else 'done already'}",
                flush=True,
            )
    results = [result for run in plan if (result := run.result())]
    if not results:
        raise SystemExit(
            f"error: {comparison.out} holds no finished run of this comparison. Start it without --report."
        )
    record, figure = Path(comparison.out) / "record", Path(comparison.out) / "results.png"
    if args.docs:
        name = Path(comparison.out).name
        record, shown = args.docs.parent / "records" / name, f"{args.docs.stem}_{name}.png"
        figure = args.docs.with_name(shown) if shown in args.docs.read_text() else figure
    print(write_report(results, costs(comparison), comparison, record, figure))


if __name__ == "__main__":
    main()
