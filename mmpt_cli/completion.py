"""A script that completes verbs and options in bash or zsh.

    mmpt completion bash >> ~/.bashrc
    mmpt completion zsh >> ~/.zshrc

Start a new shell afterwards.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence

from mmpt_cli.main import VERBS
from mmpt_cli.options import Parser

SCRIPT = """\
_mmpt() {{
    local words
    case "${{COMP_WORDS[1]}}" in
{cases}
    esac
    ((COMP_CWORD > 1)) || words="{verbs}"
    COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _mmpt mmpt
"""


def parser() -> Parser:
    """The options."""
    p = Parser("mmpt completion", __doc__)
    p.add_argument("shell", choices=("bash", "zsh"))
    return p


def words(p: argparse.ArgumentParser) -> list[str]:
    """What may follow a verb: its shown options, its verbs and theirs."""
    found = []
    for action in p._actions:
        if isinstance(action, argparse._SubParsersAction):
            found += [*action.choices, *(word for below in action.choices.values() for word in words(below))]
        elif action.help is not argparse.SUPPRESS:
            found += [*action.option_strings, *map(str, action.choices or ())]
    return list(dict.fromkeys(found))


def main(argv: Sequence[str] | None = None) -> int:
    """Print the script."""
    args = parser().parse_args(argv)
    parsers = {
        verb: importlib.import_module(f"mmpt_cli.{file}").parser() for verb, (file, _) in VERBS.items()
    }
    cases = "\n".join(f'    {verb}) words="{" ".join(words(p))}" ;;' for verb, p in parsers.items())
    before = "autoload -U +X bashcompinit && bashcompinit\n" if args.shell == "zsh" else ""
    print(before + SCRIPT.format(cases=cases, verbs=" ".join(VERBS)), end="")
    return 0
