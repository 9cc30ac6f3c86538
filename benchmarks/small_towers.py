"""Small towers of the main job over seeds, and a recipe chosen blind to the test, as records.

    python benchmarks/small_towers.py 2 3             # docs/records/small_towers
    python benchmarks/small_towers.py 1 --fresh 1     # docs/records/small_towers_fresh

Seeds are of weights and batches; the main job's own record holds seed 1. With `--fresh` the data are another
world, which nobody has looked at: the recipe of the main job as it is, and beside it the one of CANDIDATES
that is best on this world's validation clips, meet its tests. About a minute of idle CPU a training; what is
trained is not trained again.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmpt.api.evaluation import Evaluation
from mmpt.demo.main_job import SMALL, STAGES, MainJob, configured, train, validation
from mmpt.demo.report import evaluate_rows, write_proof
from mmpt.demo.toy_runs import data_files, data_fingerprint, read_cost
from mmpt.models import build_model
from mmpt.synthetic.build import build_world
from mmpt.synthetic.settings import NOISE, SIZES, Settings

RECIPE = "words300"  # of the main job
CANDIDATES = (("small/words", 100), ("small/words", 300), ("small/words", 500), ("small/bag", 300))


def trained(name: str, job: MainJob) -> Path:
    """Weights of a project of small towers."""
    train(SMALL, name, job)
    return Path(job.out) / name / "checkpoint_last.pt"


def validated(name: str, job: MainJob) -> float:
    """R@1 on the labelled clips of the validation videos, which no test holds."""
    model = build_model(configured(name, job), trained(name, job))
    return Evaluation(validation(job), device="cpu").score(model)[0].values["R1"]


def candidates(job: MainJob) -> tuple[dict[str, tuple[str, MainJob]], str, dict[str, float]]:
    """Project and job of each candidate, which is best, and R@1 of all on validation clips."""
    jobs, found = {}, {}
    for name, updates in CANDIDATES:
        title = f"{name.rpartition('/')[2]}{updates}"
        jobs[title] = name, dataclasses.replace(job, out=f"{job.out}/{title}", updates=(updates, updates))
        found[title] = validated(*jobs[title])
    return jobs, max(found, key=found.__getitem__), found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("seeds", nargs="+", type=int)
    parser.add_argument("--size", choices=SIZES, default="main")
    parser.add_argument("--fresh", type=int, metavar="SEED", help="choose on the world of this seed")
    parser.add_argument("--record", type=Path, help="folder (default: in docs/records)")
    args = parser.parse_args()
    name = "small_towers" if args.fresh is None else "small_towers_fresh"
    data = "data/toy" if args.fresh is None else f"data/fresh{args.fresh}"
    world = Settings(size=SIZES[args.size], noise=NOISE["moderate"], seed=args.fresh or 0)
    build_world(data, world)
    models: dict[str, tuple[Any, Path]] = {}
    about: dict[str, Any] = {"command": f"python benchmarks/small_towers.py {' '.join(sys.argv[1:])}"}
    for seed in args.seeds:
        job = MainJob(size=args.size, seed=seed, data=data, out=f"runs/{name}/seed{seed}")
        jobs = {f"{SMALL}, seed {seed}": (STAGES[SMALL], job)}
        if args.fresh is not None:
            jobs, best, about[f"validation R1, seed {seed}"] = candidates(job)
            jobs = {
                f"{SMALL}, seed {seed}": jobs[RECIPE],
                f"chosen on validation: {best}, seed {seed}": jobs[best],
            }
        for row, (project, job) in jobs.items():
            models[row] = configured(project, job), trained(project, job)
    tests = {test: configured(f"test_{test}_zs", job) for test in ("vtt", "youcook", "youcook_fullvideo")}
    rows = evaluate_rows(tests, models, data)
    costs = {row: read_cost(path.parent) for row, (_, path) in models.items()}
    about |= {
        "settings": dataclasses.asdict(job),
        "seeds": args.seeds,
        "data": {"fingerprint": data_fingerprint(data), "files": data_files(data)},
    }
    print(write_proof(rows, costs, args.record or Path("docs/records") / name, models, about))


if __name__ == "__main__":
    main()
