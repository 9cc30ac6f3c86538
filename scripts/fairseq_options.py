"""Writes mmpt/config/fairseq_options.py: the options of fairseq-train with our plugin, and what each takes.

    python scripts/fairseq_options.py

Run it when fairseq's pin moves; a test holds the file equal to the installed fairseq.
"""

from __future__ import annotations

import argparse
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "mmpt" / "config" / "fairseq_options.py"
KINDS = {int: "int", float: "float"}
CHOSEN = ("optimizer", "lr_scheduler")  # options whose value brings further options


def options() -> dict[str, dict[str, str]]:
    """No value -> name -> kind, of all runs; `optimizer=adam` -> those of runs with that value."""
    import fairseq.options
    from fairseq.dataclass.utils import gen_parser_from_dataclass
    from fairseq.registry import REGISTRIES

    import mmpt.fairseq_plugin  # noqa: F401  registers task, model, criterion and schedules

    found = {"": kinds(fairseq.options.get_training_parser())}
    for name in CHOSEN:
        for value, cls in sorted(REGISTRIES[name]["registry"].items()):
            parser = argparse.ArgumentParser()
            if hasattr(cls, "add_args"):
                cls.add_args(parser)
            elif hasattr(cls, "__dataclass"):
                gen_parser_from_dataclass(parser, getattr(cls, "__dataclass")())
            found[f"{name}={value}"] = kinds(parser)
    return found


def kinds(parser: argparse.ArgumentParser) -> dict[str, str]:
    """Name with underscores -> bool (a bare flag), int, float, text, or ints or floats: one or several."""
    return {
        option.removeprefix("--").replace("-", "_"): "bool" if action.nargs == 0 else kind(action)
        for action in parser._actions
        for option in action.option_strings
        if option.startswith("--") and option != "--help"
    }


def kind(action: argparse.Action) -> str:
    if action.type in KINDS:
        return KINDS[action.type]
    read = action.type("1") if getattr(action.type, "__name__", "") == "<lambda>" else None
    return f"{KINDS[type(read[0])]}s" if isinstance(read, list) else "text"


def page() -> str:
    """The module."""
    lines = ['"""Options of fairseq-train and what they take; written by scripts/fairseq_options.py."""', ""]
    lines += ["# of all runs, and of those with a certain optimizer or learning-rate schedule", "OPTIONS = {"]
    for when, names in options().items():
        lines += [
            f'    "{when}": {{',
            *(f'        "{name}": "{kind}",' for name, kind in sorted(names.items())),
            "    },",
        ]
    return "\n".join([*lines, "}"]) + "\n"


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
