"""Calibrate the alignments of a model on videos whose truth is known: spans with stated coverage, "not
visible".

    mmpt calibrate features/ htm_align.json --model norton
    mmpt calibrate data/toy/how2/feat data/toy/truth.json --model toy --aligner plan --coverage 0.9

VIDEOS is a folder of videos, or of features `<id>.npy`, that the model was not trained on. TRUTH says what
each sentence's span is: HTM-Align's JSON (with what is not visible), YouCook2's or ActivityNet's
annotations, the synthetic world's truth.json, or captions with times. The result lies beside the weights and
is used by `mmpt align`, `MMPTModel.align` and whatever stands on them, for alignments of the same windows.

Printed are means over random splits of these videos in halves. docs/calibration.md says what is promised.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from mmpt_cli.options import Parser, count, progress, speak


def parser() -> Parser:
    """The options."""
    p = Parser("mmpt calibrate", __doc__)
    add = p.add_argument
    add("videos", type=Path, help="folder of videos, or of features <id>.npy")
    add("truth", type=Path, help="where each sentence is shown")
    add("--model", required=True, help="name, project file, folder or hub id")
    add("--checkpoint", help="weights of a project file")
    add("--aligner", choices=("plan", "dtw", "otam", "window"), default="plan", help="default: %(default)s")
    add("--window", type=count, default=4, help="seconds per window (default: %(default)s)")
    add("--coverage", type=_share, default=0.9, help="of spans (default: %(default)s)")
    add(
        "--false-discovery", type=_share, default=0.1, help="of what is called visible (default: %(default)s)"
    )
    add("--splits", type=count, default=50, help="random halves to test on (default: %(default)s)")
    p.shared("--out", type=Path, help="file to write (default: beside the weights)")
    p.shared("--json", "--quiet")
    return p


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"expected a share between 0 and 1, got {text}")
    return value


def main(argv: Sequence[str] | None = None) -> None:
    """Calibrate, test, write."""
    args = parser().parse_args(argv)
    speak(args.quiet)
    from mmpt.inference.calibrate import calibrate_model, summary

    out, calibration, tested = calibrate_model(
        args.videos,
        args.truth,
        args.model,
        args.checkpoint,
        args.aligner,
        args.window,
        args.coverage,
        args.false_discovery,
        args.splits,
        args.out,
        progress=progress("video"),
    )
    numbers = summary(calibration, tested)
    if args.json:
        print(json.dumps(numbers, indent=1))
        return
    for key, value in numbers.items():
        print(f"{key}: {value}")
    print(f"written to {out}")


if __name__ == "__main__":
    from mmpt_cli.main import run

    sys.exit(run(main))
