"""The command `mmpt VERB ...`; `python -m mmpt_cli VERB ...` is the same.

A verb is a file of this folder with `parser()` and `main(argv)`, and a line in `VERBS`.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Callable, Sequence

VERBS = {  # verb -> (its file, what it does); a new verb is a line here
    "demo": ("demo", "make data, train four models, evaluate them: a table and a picture"),
    "train": ("train", "launch project files: here, under torchrun, on SLURM, as a pipeline"),
    "predict": ("predict", "evaluate checkpoints on a test set"),
    "folds": ("folds", "train and test every split of UCF101 or HMDB51, and average"),
    "check": ("check", "find everything that is wrong with project files"),
    "config": ("config", "print a project file with its includes, and where each value comes from"),
    "list": ("list", "projects, losses, models, backbones, datasets, metrics: a line each"),
    "copy": ("copy_project", "copy a project file that comes with mmpt, to edit"),
    "doctor": ("doctor", "is this machine fit to train? Every finding with its cure"),
    "features": ("features", "videos or audio tracks to one feature vector per second"),
    "captions": ("captions", "remove repetitions from captions, turn them into token shards"),
    "data": ("data", "verify, convert and make annotation and feature files"),
    "shards": ("shards", "build, verify, describe, split and merge shards"),
    "calibrate": ("calibrate", "teach a model how far its alignments can be trusted"),
    "align": ("align", "where in videos their captions are; a folder to a page and an index"),
    "search": ("search", "find moments of videos by a sentence"),
    "report": ("report", "training runs as one page of curves, or several compared"),
    "compare": ("compare", "two evaluations: is the difference more than the draw of queries?"),
    "audit": ("audit", "why is this number not that number? From a claim to a clean number in steps"),
    "certify": ("certify", "does a loss depend on ranks, order, padding, tiles or precision?"),
    "results": ("results", "show a record of results, export it, or put results of mteb beside it"),
    "verify-results": ("verify_results", "derive every cell of the published tables again"),
    "replay": ("replay", "make any update of a run again; find where two runs part"),
    "gdt": ("gdt", "what a hypothesis of GDT attracts and repels"),
    "completion": ("completion", "a script that completes verbs and options in bash or zsh"),
    "models": ("models", "models and backbones by name: which there are, and how they come here"),
    "checkpoint": ("checkpoint", "look into checkpoint files, convert and average them"),
}
USAGE = "usage: mmpt VERB ...        mmpt VERB --help says more, with examples"
WRONG_INPUT, STOPPED_BY_USER = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; the exit code: 0, 1 where it found something wrong, 2 for a wrong argument or file."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print("\n".join([USAGE, "", *(f"  {verb:<14} {about}" for verb, (_, about) in VERBS.items())]))
        return 0
    if words[0] == "--version":
        from mmpt import __version__

        print(f"mmpt {__version__}")
        return 0
    verb, *rest = words
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(VERBS)}."
        print(f"error: mmpt has no verb {verb!r}. {hint}", file=sys.stderr)
        return WRONG_INPUT
    return run(load(verb), rest)


def load(verb: str) -> Callable[[Sequence[str] | None], int | None]:
    """The function behind a verb; nothing else is imported."""
    return importlib.import_module(f"mmpt_cli.{VERBS[verb][0]}").main


def door(verb: str, *words: str) -> Callable[[Sequence[str] | None], int]:
    """The `main` of a file that was a command of its own in earlier versions: a verb and its first words."""

    def main(argv: Sequence[str] | None = None) -> int:
        return load(verb)([*words, *(sys.argv[1:] if argv is None else argv)]) or 0

    return main


def run(entry: Callable[[Sequence[str] | None], int | None], argv: Sequence[str] | None = None) -> int:
    """Call the function of a verb; a wrong project file ends it with one message and exit code 2."""
    from mmpt.config.yamlfile import ConfigError
    from mmpt.utils.log import short_errors

    short_errors()
    try:
        return entry(argv) or 0
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_INPUT
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return STOPPED_BY_USER
    except BrokenPipeError:  # `mmpt list losses | head`: who read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
