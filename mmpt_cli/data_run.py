"""What the verbs of `mmpt data` call."""

from __future__ import annotations

import argparse
import inspect
import json
import re
import time
import typing
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from mmpt.config import ConfigError, load_config
from mmpt.config.yamlfile import parse_yaml
from mmpt.processors import convert as converting
from mmpt.processors import verify as verifying
from mmpt.processors.modalities.modalities import lacking_by_split
from mmpt.registry import load_plugins
from mmpt.synthetic.action_clips import write_action_clips
from mmpt.synthetic.build import build_world
from mmpt.synthetic.clips import write_clips
from mmpt.synthetic.settings import NOISE, SIZES, Noise, Settings, Size
from mmpt.utils.safe_pickle import convert_pickle
from mmpt.utils.text import first_of
from mmpt_cli.options import Parser, progress

NAMED = 5


def verify(args: argparse.Namespace) -> int:
    """1 where something is missing or impossible."""
    config = load_config(args.config, args.overrides)
    if config.plugins and not args.trust_plugins:
        raise ConfigError(
            f"{args.config}: plugins: {', '.join(config.plugins)} would be imported, which runs their code. "
            "Read them, then give --trust-plugins."
        )
    load_plugins(config.plugins)
    levels: Counter[str] = Counter()
    found = []
    for finding in verifying.verify(config):
        found.append({"level": finding.level, "text": finding.text})
        levels[finding.level] += 1
        if not args.json:
            print(finding, flush=True)
    errors = levels[verifying.ERROR]
    said = f"{args.config}: {errors} errors, {levels[verifying.WARNING]} warnings"
    print(json.dumps(found, indent=1) if args.json else said)
    return 1 if errors else 0


def convert(words: Sequence[str]) -> int:
    """A data set's own converter."""
    p = Parser("mmpt data convert", "Publishers' files to what project files name.")
    verb = p.verbs()
    for name in converting.converters():
        _add_converter(verb, name)
    given = vars(p.parse_args(words))
    print(converting.convert(given.pop("command").replace("-", "_"), **given))
    return 0


def _add_converter(verb: Callable[..., Parser], name: str) -> None:
    """A sub-command of a data set's `convert`, its options and their help from the function itself."""
    function = converting.converter(name)
    doc = inspect.getdoc(function) or ""
    about = doc.split("\n\n")[0].replace("\n", " ")
    parser = verb(name.replace("_", "-"), about)
    hints = typing.get_type_hints(function)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            parser.add_argument(parameter.name, type=Path)
            continue
        told = re.search(rf"^ +{parameter.name}: (.*)$", doc, re.MULTILINE)
        choices = typing.get_args(hints[parameter.name]) if isinstance(parameter.default, str) else None
        is_number = isinstance(parameter.default, float)
        parser.add_argument(
            f"--{parameter.name}",
            type=str if choices else float if is_number else Path,
            choices=choices,
            required=parameter.default is parameter.empty,
            default=parameter.default,
            help=(told.group(1) if told else "")
            + (" (default: %(default)s)" if choices or is_number else ""),
        )


def plain(args: argparse.Namespace) -> None:
    """A pickle as plain data."""
    replaced = convert_pickle(args.source, args.target, args.trust)
    print(f"{args.target}: plain data; replaced: {', '.join(replaced) or 'nothing'}")


def modalities(args: argparse.Namespace) -> int:
    """1 with --strict where anything is missing."""
    found = lacking_by_split(load_config(args.config, args.overrides).dataset, args.config)
    for split, (path, n_items, missing) in found.items():
        print(f"{split}: {path}, {n_items} items")
        for name, ids in missing.items():
            some = f": {first_of(ids, NAMED)}" if ids else ""
            nowhere = "; ABSENT EVERYWHERE" if len(ids) == n_items else ""
            print(f"  {name}: {len(ids)} missing ({len(ids) / n_items:.1%}){some}{nowhere}")
    listed = {split: missing for split, (_, _, missing) in found.items()}
    if args.json:
        Path(args.json).write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")
    return int(args.strict and any(ids for missing in listed.values() for ids in missing.values()))


def make(args: argparse.Namespace) -> None:
    """Write the synthetic world, or list its knobs."""
    if args.list_knobs:
        fields = [field for group in (Noise, Size) for field in group.yaml_names().values()]
        print("\n".join(f"{f.name:16} {f.default!s:>6}  {f.metadata['help']}" for f in fields))
        return
    sizes = {"noise": NOISE[args.noise], "size": SIZES[args.size], "dropout": args.dropout}
    settings = Settings(seed=args.seed, **sizes)
    settings = settings.with_knobs({name: parse_yaml(value, f"--set {name}") for name, value in args.set})
    start = time.monotonic()
    if build_world(args.out, settings, track=progress("")):
        which = f"{args.size}, {args.noise}, seed {args.seed}"
        print(f"{args.out}: synthetic world written in {time.monotonic() - start:.0f} s ({which})")
    else:
        print(f"{args.out}: synthetic world is there already, complete and with the same settings")


def clips(args: argparse.Namespace) -> None:
    """Write small videos with sound."""
    for folder, n in write_clips(args.out, args.videos, args.seconds, args.seed).items():
        print(f"{folder}: {n} videos")
    folder = args.out / "actions"
    print(f"{folder}: {write_action_clips(folder, args.actions, seed=args.seed)} labelled videos")
