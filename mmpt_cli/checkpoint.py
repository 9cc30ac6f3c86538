"""Look into checkpoint files, convert and average them.

    mmpt checkpoint show runs/retri/norton/checkpoint_best.pt
    mmpt checkpoint convert runs/retri/norton/checkpoint_best.pt norton.safetensors
    mmpt checkpoint convert norton.safetensors norton.pt
    mmpt checkpoint average runs/retri/norton --last 5 --out runs/retri/norton/averaged.safetensors

A .safetensors file holds the weights (float32, plain names) and what `show` says about them; fairseq,
predict and `from_pretrained` read both kinds. A .pt file made by `convert` or `average` holds no optimizer
state: name it in `fairseq.checkpoint.restore_file` with the reset_ flags set. No file is read in a way that
could run code from it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from mmpt_cli.options import Parser, count, speak


def parser() -> Parser:
    """The options."""
    p = Parser("mmpt checkpoint", __doc__)
    verb = p.verbs()
    show = verb("show", "what is in a file")
    show.add_argument("file", type=Path)
    show.shared("--json")
    convert = verb("convert", "to .safetensors with the description in its header, or back to .pt")
    convert.add_argument("source", type=Path)
    convert.add_argument("target", type=Path)
    average = verb("average", "mean of the last checkpoints of a run folder")
    average.add_argument("folder", type=Path)
    average.add_argument("--last", type=count, default=5, help="how many (default: %(default)s)")
    average.shared("--out", type=Path, required=True, help="file to write: .safetensors or .pt")
    return p


def main(argv: Sequence[str] | None = None) -> None:
    """Do it."""
    args = parser().parse_args(argv)
    speak()
    from mmpt.checkpoints.average import average_last
    from mmpt.checkpoints.convert import convert
    from mmpt.checkpoints.describe import as_text, describe

    if args.command == "show":
        print(json.dumps(describe(args.file), indent=2) if args.json else as_text(args.file))
    elif args.command == "convert":
        convert(args.source, args.target)
        print(f"written {args.target}")
    else:
        paths = average_last(args.folder, args.last, args.out)
        print(f"written {args.out}, the mean of {', '.join(path.name for path in paths)}")


if __name__ == "__main__":
    from mmpt_cli.main import run

    sys.exit(run(main))
