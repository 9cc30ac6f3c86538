"""Annotation and feature files: are they what a project file expects, and how to make them from what
publishers give.

    python -m mmpt_cli.data verify projects/retri/norton/test_youcook_zs.yaml
    python -m mmpt_cli.data convert youcook youcookii_annotations_trainval.json data/youcook/youcook_val.pkl
    python -m mmpt_cli.data convert youcook ANNOTATIONS.json OUT.pkl --csv validation_youcook.csv  MIL-NCE's
        3350 clips
    python -m mmpt_cli.data convert youcook ANNOTATIONS.json OUT.pkl --videos ids.txt  any other gallery
    python -m mmpt_cli.data convert msrvtt MSRVTT_data.json data/msrvtt --test MSRVTT_JSFUSION_test.csv
    python -m mmpt_cli.data convert coin COIN.json data/coin/COIN.json
    python -m mmpt_cli.data convert crosstask crosstask_release/ data/crosstask/crosstask_release
    python -m mmpt_cli.data convert htm-align htm_align.json data/how2-align/htm_align.json

verify ends with status 1 where something is missing or impossible; warnings (other counts than published,
captions outside the video) leave it at 0.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from mmpt.config import load_config
from mmpt.registry import load_plugins
from mmpt.utils.log import short_errors
from mmpt_cli import data_convert
from mmpt_cli.data_verify import ERROR, WARNING, verify


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    args = _parser().parse_args(argv)
    return args.run(args)


def _verify(args: argparse.Namespace) -> int:
    config = load_config(args.config, args.set)
    load_plugins(config.plugins)
    levels: Counter[str] = Counter()
    readers = logging.getLogger("mmpt.processors")
    said_from = readers.level
    readers.setLevel(logging.ERROR)  # ids left out are counted in the report
    try:
        for finding in verify(config):
            print(finding, flush=True)
            levels[finding.level] += 1
    finally:
        readers.setLevel(said_from)
    print(f"{args.config}: {levels[ERROR]} errors, {levels[WARNING]} warnings")
    return 1 if levels[ERROR] else 0


def _convert(function: Callable[..., str], *options: str) -> Callable[[argparse.Namespace], int]:
    def run(args: argparse.Namespace) -> int:
        if args.source.resolve() == args.out.resolve():
            raise ValueError(f"{args.out} is the source itself; choose another file to write.")
        print(function(args.source, args.out, **{option: getattr(args, option) for option in options}))
        return 0

    return run


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mmpt_cli.data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True)
    check = commands.add_parser("verify", help="what stands behind a project file's dataset section")
    check.add_argument("config", help="project file")
    check.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="overwrite a key of the project file"
    )
    check.set_defaults(run=_verify)
    formats = commands.add_parser(
        "convert", help="publishers' files -> what project files name"
    ).add_subparsers(required=True)
    youcook = _format(formats, "youcook", "youcookii_annotations_trainval.json", "pickle to write")
    youcook.add_argument(
        "--subset", choices=("training", "validation"), default="validation", help="default: %(default)s"
    )
    youcook.add_argument(
        "--csv", type=Path, dest="table", help="MIL-NCE's validation csv: these clips, with its texts"
    )
    youcook.add_argument("--videos", type=Path, help="file of video ids: only these")
    youcook.set_defaults(run=_convert(data_convert.convert_youcook, "subset", "table", "videos"))
    msrvtt = _format(formats, "msrvtt", "MSRVTT_data.json", "folder to write the lists into")
    msrvtt.add_argument(
        "--test", type=Path, required=True, help="the 1k-A test csv, whose videos no training list may hold"
    )
    msrvtt.set_defaults(run=_convert(data_convert.convert_msrvtt, "test"))
    _format(formats, "coin", "COIN.json", "JSON to write").set_defaults(
        run=_convert(data_convert.convert_coin)
    )
    _format(formats, "crosstask", "release folder", "folder to write").set_defaults(
        run=_convert(data_convert.convert_crosstask)
    )
    _format(formats, "htm-align", "htm_align.json", "JSON to write").set_defaults(
        run=_convert(data_convert.convert_htm_align)
    )
    return parser


def _format(formats, name: str, source: str, out: str) -> argparse.ArgumentParser:
    parser = formats.add_parser(name)
    parser.add_argument("source", type=Path, help=source)
    parser.add_argument("out", type=Path, help=out)
    return parser


if __name__ == "__main__":
    short_errors()
    sys.exit(main())
