"""Evaluate checkpoints on a test set.

    mmpt predict projects/retri/norton/test_youcook_zs.yaml
    mmpt predict FILE --checkpoint runs/retri/norton/checkpoint_best.pt --device cpu --out runs/eval
    mmpt predict FILE --untrained --json
    mmpt predict projects/dual/test_vtt_zs.yaml --model openai/clip-vit-base-patch32 --videos
    data/msrvtt/videos
    mmpt predict FILE --nproc 8                        # the same files, encoded by 8 processes

Without --checkpoint: every checkpoint*.pt of the run folder (the folder part of eval.save_path) by name, then
fairseq.common_eval.path. For each: results.json, results.md and per_query.npz under OUT/<checkpoint>/, with
--plots also pictures; OUT/results.json sums up.
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
if Path(sys.path[0]).resolve() == HERE:  # `python mmpt_cli/predict.py`, the line that papers print
    sys.path[0] = str(HERE.parent)

from mmpt.launch.torchrun import meeting, run_ranks, words_of_rank  # noqa: E402
from mmpt_cli.options import Parser, add_machines, progress, speak, topology_of  # noqa: E402


def parser() -> Parser:
    """The options."""
    p = Parser("mmpt predict", __doc__)
    add = p.add_argument
    add("config", metavar="FILE", help="project file with `predictor` and `metric`")
    add("--checkpoint", help="evaluate this file only (with --all: this one too)")
    add("--all", action="store_true", help="every checkpoint*.pt of the run folder; as without --checkpoint")
    add("--model", metavar="ID", help="of projects/dual: hub id or folder of CLIP, SigLIP, X-CLIP, CLAP")
    add("--videos", metavar="DIR", help="folder of video files: features are made of them first")
    add("--untrained", action="store_true", help="evaluate the model as initialised")
    p.shared("--out", help="folder of the reports (default: <eval.save_path>/<name of the file>)")
    add("--predict-only", action="store_true", help="run the predictor and keep its arrays; no metric")
    add("--save-predictions", action="store_true", help="keep the predictor's arrays as predictions.npz")
    add("--plots", action="store_true", help="draw ranks, scores, alignments, timelines (needs matplotlib)")
    add("--modalities", metavar="TV,TVA", help="subsets an N-modal test compares: t and first letters")
    p.shared("--device", "--set", "--json", "--quiet")
    add_machines(p)
    return p


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate one checkpoint after the other."""
    words = words_of_rank()
    args = parser().parse_args(argv if words is None else words)
    topology = topology_of(args)
    if topology.world_size > 1 and words is None:
        sys.exit(run_ranks(topology, "mmpt_cli.predict", sys.argv[1:] if argv is None else argv))
    with meeting():
        _predict(args)


def _predict(args: Namespace) -> None:
    """In one process, or as one of several."""
    from mmpt.ops.distributed import rank

    first = rank() == 0
    speak(args.quiet or not first)
    from mmpt.api.evaluation import Evaluation, best_of, find_checkpoints, labels, write_summary
    from mmpt.config import ConfigError, load_config

    subsets = [f"eval.modalities=[{args.modalities}]"] if args.modalities else []
    given = {"dataset.bert_name": args.model, "dataset.videos": args.videos}
    raw = [f"{key}={value}" for key, value in given.items() if value is not None]
    if args.model and load_config(args.config).model.model_cls != "DualEncoder":
        raise ConfigError(
            f"{args.config}: --model is for tests of DualEncoder, such as those of projects/dual."
        )
    evaluation = Evaluation(args.config, [*args.overrides, *subsets, *raw], args.device, progress("batch"))
    alone = args.untrained or (evaluation.brings_weights and args.checkpoint is None)
    named = [None] if alone else find_checkpoints(evaluation.config, args.checkpoint, args.all)
    out, reports = Path(args.out or evaluation.out), {}
    say = print if first and not args.json else lambda *text: None
    items = f"{len(evaluation.dataset)} test items"
    say(f"{args.config}: {items}, device {evaluation.device}, {len(named)} checkpoint(s)")
    for label, path in labels(named, evaluation.unnamed).items():
        say(f"\n{path or evaluation.unnamed}")
        if args.predict_only:
            evaluation.predict(path, out / label)
            continue
        keep = {"plots": args.plots, "save_predictions": args.save_predictions}
        reports[label] = evaluation(path, out / label, **keep)
        say(reports[label].text())
    if reports and first:
        write_summary(out, reports)
    if len(reports) > 1:
        best = reports[best_of(reports)]
        chosen = next((str(path) for path in named if path and path.name == "checkpoint_best.pt"), "FILE")
        say(
            f"\nThe test itself chose the best of {len(reports)} checkpoints, so its numbers are too good. "
            f"To report some, evaluate the one that validation chose: --checkpoint {chosen}"
        )
        say(f"\nbest results:\n{best.checkpoint.get('path', evaluation.unnamed)}\n{best.text()}")
    say(f"\nwritten to {out}")
    if args.json:
        print(json.dumps({label: report.result.values for label, report in reports.items()}, indent=1))


if __name__ == "__main__":
    from mmpt_cli.main import run

    sys.exit(run(main))
