"""The 89 flags of the GRAM release as options of `mmpt train`; `--help-gram` shows what becomes of each."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from mmpt.config import ConfigError
from mmpt.launch.gram_flags import BOTH, FLAGS, INSTEAD, JOBS, SEVERAL, SWITCHES, WITHOUT_EFFECT
from mmpt_cli.options import Parser, typed


class _ShowGramFlags(argparse.Action):
    """`--help-gram`."""

    def __call__(self, parser: argparse.ArgumentParser, *given: Any) -> None:
        print("flags of the GRAM release: changes of the project file by the names that its users know\n")
        for flag, (where, _, _) in FLAGS.items():
            print(f"  --{flag} X".ljust(34) + ("" if where == BOTH else f"{where}ing jobs"))
        print("\nwhich jobs run:")
        for flag, meaning in JOBS.items():
            print(f"  --{flag} X".ljust(34) + meaning)
        print("\nnot here:")
        for flag, instead in INSTEAD.items():
            print(f"  --{flag}".ljust(34) + instead)
        print("\nwithout effect, as in the release:\n  " + " ".join(WITHOUT_EFFECT))
        parser.exit()


def add_gram_flags(parser: Parser) -> None:
    """All of them, left out of the ordinary help."""
    kinds: dict[str, Callable[[str], Any]] = dict.fromkeys(JOBS, str)
    kinds = {flag: kind for flag, (_, kind, _) in FLAGS.items()} | kinds
    for flag, kind in kinds.items():
        words: dict[str, Any] = {"nargs": SEVERAL[flag]} if flag in SEVERAL else {}
        if flag in SWITCHES:
            kind, words = FLAGS["checkpointing"][1], {"nargs": "?", "const": True}
        if flag == "mode":
            words = {"choices": ("training", "testing")}
        parser.add_argument(f"--{flag}", type=typed(kind), help=argparse.SUPPRESS, **words)
    for flag in (*INSTEAD, *WITHOUT_EFFECT):
        parser.add_argument(f"--{flag}", nargs="?", const="", help=argparse.SUPPRESS)
    text = "the flags of the GRAM release (--train_task, --learning_rate, --config X.json ...) work here, too"
    parser.add_argument("--help-gram", action=_ShowGramFlags, nargs=0, help=text)


def given_flags(args: argparse.Namespace) -> dict[str, Any]:
    """Flag -> value of those on the command line.

    Raises:
        ConfigError: one that has no meaning here.
    """
    for flag, instead in INSTEAD.items():
        if getattr(args, flag.replace("-", "_")) is not None:
            raise ConfigError(f"--{flag} has no meaning here: {instead}.")
    known = (*FLAGS, *JOBS, *WITHOUT_EFFECT)
    return {flag: value for flag in known if (value := getattr(args, flag)) is not None}
