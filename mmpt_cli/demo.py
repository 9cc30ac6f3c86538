"""The main job: synthetic data, four trainings by fairseq, a table beside trivial models, and a picture.

    mmpt demo                                  # about 4 minutes on 2 idle cores
    mmpt demo --seed 2 --out runs/toy_seed2
    mmpt demo --size tiny --out runs/tiny --data data/tiny --updates 20 10

Small towers train with VideoCLIP's loss on cosines; BERT towers with VideoCLIP's loss and, from there, twice
more: with VideoCLIP's loss and with Norton's, for equally many updates. What is already there is not done
again; a run that was stopped goes on from its last checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmpt.synthetic.settings import NOISE, SIZES
from mmpt_cli.options import Parser, count, progress, speak


def parser() -> Parser:
    """The options."""
    p = Parser("mmpt demo", __doc__)
    add = p.add_argument
    add("--size", choices=SIZES, default="main", help="of the synthetic data (default: %(default)s)")
    add("--noise", choices=NOISE, default="moderate", help="of the narration (default: %(default)s)")
    add("--seed", type=int, default=1, help="of weights, batches and dropout (default: %(default)s)")
    metavar = ("STAGE1", "STAGE2")
    said = "of each stage (default: 700 and 100; of small towers 300)"
    add("--updates", type=count, nargs=2, metavar=metavar, help=said)
    add("--data", default="data/toy", help="folder of the synthetic data (default: %(default)s)")
    p.shared("--out", default="runs/toy", help="folder of checkpoints and results (default: %(default)s)")
    p.shared("--quiet")
    return p


def main(argv: Sequence[str] | None = None) -> None:
    """Run it."""
    args = parser().parse_args(argv)
    speak()
    from mmpt.demo.main_job import MainJob, run

    updates = tuple(args.updates) if args.updates else None
    job = MainJob(
        size=args.size, noise=args.noise, seed=args.seed, updates=updates, data=args.data, out=args.out
    )
    run(job, None if args.quiet else show, progress(""))


def show(row: str, updates: int, line: dict[str, Any]) -> None:
    """One line on the terminal for a logged update."""
    if line["tag"] == "train_inner":
        speed = f"{line['clips_per_s']:.0f} clips/s"
        print(f"{row}: update {line['update']}/{updates}, loss {line['loss']:.3f}, {speed}", flush=True)
