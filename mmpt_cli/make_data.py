"""Write the embedded world: `python -m mmpt_cli.make_data --out data/toy --size main --noise moderate --seed
0`."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
import time
from collections.abc import Iterable, Sequence

from tqdm import tqdm

from mmpt.synthetic.build import build_world
from mmpt.synthetic.settings import NOISE, SIZES, Noise, Settings, Size
from mmpt.utils.log import short_errors

logger = logging.getLogger("mmpt.make_data")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    if options.list_knobs:
        print(_knobs())
        return 0
    settings = Settings(
        seed=options.seed, noise=NOISE[options.noise], size=SIZES[options.size], dropout=options.dropout
    )
    settings = settings.with_knobs(dict(options.set))
    start = time.monotonic()
    if build_world(options.out, settings, track=_progress):
        seconds = time.monotonic() - start
        which = f"{options.size}, {options.noise}, seed {options.seed}"
        logger.info("%s: embedded world written in %.0f s (%s)", options.out, seconds, which)
    else:
        logger.info("%s: embedded world is there already, complete and with the same settings", options.out)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mmpt_cli.make_data", description=__doc__)
    parser.add_argument("--out", default="data/toy", help="folder to write (default: %(default)s)")
    parser.add_argument("--size", choices=SIZES, default="main", help="default: %(default)s")
    parser.add_argument("--noise", choices=NOISE, default="moderate", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the whole world (default: %(default)s)")
    parser.add_argument(
        "--dropout", type=float, default=0.1, help="in the config of the small BERT (default: %(default)s)"
    )
    parser.add_argument(
        "--set",
        type=_assignment,
        action="append",
        default=[],
        metavar="KNOB=VALUE",
        help="change a knob; repeatable",
    )
    parser.add_argument("--list-knobs", action="store_true", help="show all knobs and end")
    return parser


def _assignment(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    return name, float(value)


def _knobs() -> str:
    fields = [field for group in (Noise, Size) for field in dataclasses.fields(group)]
    return "\n".join(f"{field.name:16} {field.default!s:>6}  {field.metadata['help']}" for field in fields)


def _progress(items: Iterable, label: str) -> Iterable:
    return tqdm(items, desc=label, leave=False, disable=None)


if __name__ == "__main__":
    short_errors()
    sys.exit(main())
