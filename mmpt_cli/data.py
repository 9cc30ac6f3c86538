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
import inspect
import re
import sys
import typing
from collections import Counter
from pathlib import Path

from mmpt.config import load_config
from mmpt.processors.convert import convert, converter, converters
from mmpt.processors.verify import ERROR, WARNING, verify
from mmpt.registry import load_plugins
from mmpt.utils.log import short_errors


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m mmpt_cli.data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, dest="command")
    check = commands.add_parser("verify", help="what stands behind a project file's dataset section")
    check.add_argument("config", help="project file")
    check.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="overwrite a key of the project file"
    )
    formats = commands.add_parser("convert", help="publishers' files -> what project files name")
    sets = formats.add_subparsers(required=True, dest="name")
    for name in converters():
        add_converter(sets, name)
    args = vars(parser.parse_args(argv))
    if args.pop("command") == "verify":
        return _verify(**args)
    print(convert(args.pop("name").replace("-", "_"), **args))
    return 0


def add_converter(sets, name: str) -> None:
    """A sub-command of a data set's `convert`, its options and their help from the function itself."""
    function = converter(name)
    doc = inspect.getdoc(function) or ""
    about = doc.split("\n\n")[0].replace("\n", " ")
    parser = sets.add_parser(name.replace("_", "-"), help=about, description=about)
    hints = typing.get_type_hints(function)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            parser.add_argument(parameter.name, type=Path)
            continue
        told = re.search(rf"^ +{parameter.name}: (.*)$", doc, re.MULTILINE)
        choices = typing.get_args(hints[parameter.name]) if isinstance(parameter.default, str) else None
        parser.add_argument(
            f"--{parameter.name}",
            type=str if choices else Path,
            choices=choices,
            required=parameter.default is parameter.empty,
            default=parameter.default,
            help=(told.group(1) if told else "") + (" (default: %(default)s)" if choices else ""),
        )


def _verify(config: str, set: list[str]) -> int:
    project = load_config(config, set)
    load_plugins(project.plugins)
    levels: Counter[str] = Counter()
    for finding in verify(project):
        print(finding, flush=True)
        levels[finding.level] += 1
    print(f"{config}: {levels[ERROR]} errors, {levels[WARNING]} warnings")
    return 1 if levels[ERROR] else 0


if __name__ == "__main__":
    short_errors()
    sys.exit(main())
