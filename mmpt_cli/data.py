"""Verify, convert and make annotation and feature files.

    mmpt data verify projects/retri/norton/test_youcook_zs.yaml
    mmpt data convert youcook youcookii_annotations_trainval.json data/youcook/youcook_val.pkl
    mmpt data convert youcook ANNOTATIONS.json OUT.pkl --csv validation_youcook.csv     # MIL-NCE's 3350 clips
    mmpt data convert msrvtt MSRVTT_data.json data/msrvtt --test MSRVTT_JSFUSION_test.csv
    mmpt data convert crosstask crosstask_release/ data/crosstask/crosstask_release
    mmpt data plain theirs.pkl plain.pkl --trust            # a pickle of other classes, as plain data
    mmpt data modalities projects/retri/gram/vtt.yaml       # which ids lack which modality
    mmpt data make --size tiny                              # the synthetic world, in data/toy
    mmpt data clips                                         # small videos with sound, in data/toy_clips

`verify` ends with exit code 1 where something is missing or impossible; warnings (other counts than
published, captions outside the video) leave it at 0. A project file with `plugins:` names code, which is
imported only with --trust-plugins. `convert NAME --help` describes a converter.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmpt.synthetic.settings import NOISE, SIZES
from mmpt_cli.options import Parser, count, pair, speak


def parser() -> Parser:
    """The options; those of the converters are their own."""
    p = Parser("mmpt data", __doc__)
    verb = p.verbs()
    verify = verb("verify", "what stands behind a project file's dataset section")
    verify.add_argument("config", metavar="FILE", help="project file")
    verify.shared("--set", "--json")
    verify.add_argument(
        "--trust-plugins", action="store_true", help="import the code that the file names under `plugins:`"
    )
    convert = verb("convert", "publishers' files to what project files name")
    convert.add_argument("words", nargs=argparse.REMAINDER, metavar="NAME SOURCE OUT ...")
    plain = verb("plain", "a pickle of dict-like classes, arrays or a DataFrame to a pickle of plain data")
    plain.add_argument("source", type=Path, metavar="PICKLE", help="what a reader refused")
    plain.add_argument("target", type=Path, metavar="OUT", help="pickle to write")
    plain.add_argument("--trust", action="store_true", help="load it whatever it holds: it may run any code")
    modalities = verb("modalities", "which ids lack which modality")
    modalities.add_argument("config", metavar="FILE", help="project file with dataset.modalities")
    modalities.shared("--set")
    modalities.add_argument("--json", metavar="PATH", help="write all ids there")
    modalities.add_argument("--strict", action="store_true", help="exit code 1 if anything is missing")
    make = verb("make", "write the synthetic world")
    make.shared("--out", default="data/toy", help="folder to write (default: %(default)s)")
    make.add_argument("--size", choices=SIZES, default="main", help="default: %(default)s")
    make.add_argument("--noise", choices=NOISE, default="moderate", help="default: %(default)s")
    make.add_argument("--seed", type=int, default=0, help="of the whole world (default: %(default)s)")
    make.add_argument("--dropout", type=float, default=0.1, help="of the small BERT (default: %(default)s)")
    knob: dict[str, Any] = {"default": [], "metavar": "KNOB=VALUE", "type": pair}
    make.add_argument("--set", action="append", **knob, help="change a knob; repeatable")
    make.add_argument("--list-knobs", action="store_true", help="show all knobs and end")
    clips = verb("clips", "write small videos with sound")
    clips.shared("--out", type=Path, default=Path("data/toy_clips"), help="folder (default: %(default)s)")
    clips.add_argument("--videos", type=count, default=64, help="in train; val has a quarter (%(default)s)")
    clips.add_argument("--seconds", type=count, default=6, help="of each (default: %(default)s)")
    clips.add_argument(
        "--actions", type=count, default=12, help="labelled videos of each class (%(default)s)"
    )
    clips.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Do it; the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["convert"]:  # whose options come with the data sets, and are read only when asked for
        from mmpt_cli.data_run import convert

        return convert(argv[1:])
    args = parser().parse_args(argv)
    speak()
    from mmpt_cli import data_run

    return getattr(data_run, args.command)(args) or 0


if __name__ == "__main__":
    from mmpt_cli.main import run

    sys.exit(run(main))
