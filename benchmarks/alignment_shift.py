"""The figure of docs/alignment.md: what a constant added to all scores does to measures of alignment.

    python benchmarks/alignment_shift.py [--size small] [--out docs/alignment_shift.png]

The model is a ridge regression from words to features, fitted and tested on the synthetic world. For a
checkpoint of your own: `mmpt predict CONFIG --checkpoint FILE --plots` with a full-video project file draws
the same as shift.png.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.measured import command_line, publish  # noqa: E402
from mmpt.api.evaluation import Evaluation  # noqa: E402
from mmpt.demo.toy_runs import move_folders  # noqa: E402
from mmpt.evaluators.plots import plot_shift_curve  # noqa: E402
from mmpt.evaluators.tasks.fullvideo import CURVE, SHIFTS  # noqa: E402
from mmpt.models.linear import RidgeBaseline, fit_ridge_to_shards  # noqa: E402
from mmpt.processors import load_tokenizer  # noqa: E402
from mmpt.synthetic.build import build_world  # noqa: E402
from mmpt.synthetic.settings import SIZES, Settings  # noqa: E402


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--size", default="small", choices=sorted(SIZES))
    parser.add_argument("--out", default=str(ROOT / "docs/alignment_shift.png"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = f"{folder}/toy"
        build_world(data, Settings(size=SIZES[args.size]))
        project = ROOT / "projects/toy/test_youcook_fullvideo_zs.yaml"
        moves = [*move_folders(project, {"data/toy": data}), "eval.bootstrap=0"]
        evaluation = Evaluation(project, moves, device="cpu")
        vocabulary = len(load_tokenizer(f"{data}/model"))
        ridge = fit_ridge_to_shards(f"{data}/how2/feat", f"{data}/how2/feat/narration.", vocabulary)
        result, _ = evaluation.score(RidgeBaseline(evaluation.config, ridge.weights))
    curve = {
        name.removeprefix(CURVE): values for name, values in result.facts.items() if name.startswith(CURVE)
    }
    plot_shift_curve(args.out, SHIFTS, curve)
    rows = [[name, *(f"{100 * r1:.1f}" for r1 in values.values())] for name, values in curve.items()]
    head = ["R@1, scores plus", *(f"{c:+} sd" for c in SHIFTS)]
    facts = {name: value for name, value in result.facts.items() if not name.startswith(CURVE)}
    title = (
        f"Ridge regression from words to features on the synthetic world, size {args.size}, R@1 in percent: "
        f"{facts['gallery']} videos, {facts['captions']} captions"
    )
    publish(args.record, {title: [head, *rows]}, facts, timed=False)


if __name__ == "__main__":
    main()
