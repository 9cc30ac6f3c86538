"""The flags of the GRAM release as options of `mmpt train`: they work, and `--help-gram` shows them."""

from __future__ import annotations

import argparse
from typing import Any

from mmpt.config import ConfigError
from mmpt.launch.gram_flags import BOTH, FLAGS, INSTEAD
from mmpt_cli.options import Parser, typed


class _ShowGramFlags(argparse.Action):
    """`--help-gram`."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print("flags of the GRAM release: changes of the project file by the names that its users know\n")
        for flag, (where, _, _) in FLAGS.items():
            print(f"  --{flag} X".ljust(30) + ("" if where == BOTH else f"{where}ing jobs"))
        print("\nnot here:")
        for flag, instead in INSTEAD.items():
            print(f"  --{flag}".ljust(30) + instead)
        parser.exit()


def add_gram_flags(parser: Parser) -> None:
    """All of them, left out of the ordinary help."""
    for flag, (_, kind, _) in FLAGS.items():
        parser.add_argument(f"--{flag}", type=typed(kind), help=argparse.SUPPRESS)
    for flag in INSTEAD:
        parser.add_argument(f"--{flag}", help=argparse.SUPPRESS)
    text = "the flags of the GRAM release (--train_task, --learning_rate ...), which work here too"
    parser.add_argument("--help-gram", action=_ShowGramFlags, nargs=0, help=text)


def given_flags(args: argparse.Namespace) -> dict[str, Any]:
    """Flag -> value of those on the command line.

    Raises:
        ConfigError: one that has no meaning here.
    """
    for flag, instead in INSTEAD.items():
        if getattr(args, flag) is not None:
            raise ConfigError(f"--{flag} has no meaning here: {instead}.")
    return {flag: value for flag in FLAGS if (value := getattr(args, flag)) is not None}
