"""The words that all verbs share: one spelling, one meaning, one help text each."""

from __future__ import annotations

import argparse
import difflib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from mmpt.launch.torchrun import Topology

SPLITS = ("train", "valid", "test")
OPTIONS: dict[str, dict[str, Any]] = {
    "--set": {
        "action": "append",
        "default": [],
        "metavar": "KEY=VALUE",
        "dest": "overrides",
        "help": "replace a value of the project file, e.g. fairseq.optimization.max_epoch=1; repeatable",
    },
    "--out": {"metavar": "PATH", "help": "where to write"},
    "--device": {
        "default": "auto",
        "help": "cpu, cuda, cuda:N, or auto: a GPU where there is one (default: %(default)s)",
    },
    "--nproc": {"metavar": "N", "help": "processes on this machine, one GPU each where there are GPUs"},
    "--shard-size": {"metavar": "N", "help": "items per shard (default: %(default)s)"},
    "--split": {"metavar": "|".join(SPLITS), "help": "which part of the data (default: %(default)s)"},
    "--json": {"action": "store_true", "help": "print JSON"},
    "--quiet": {"action": "store_true", "help": "no progress bars, and only warnings on stderr"},
}
EARLIER = {  # spellings of earlier versions, which go on working and are not shown
    "--out": ["--output", "--target"],
    "--nproc": ["--nproc-per-node", "--ranks"],
    "--shard-size": ["--per-shard", "--shards"],
}


class Parser(argparse.ArgumentParser):
    """A parser whose description is the text of the file it stands in, examples included."""

    def __init__(self, prog: str, text: str | None, **kwargs: Any):
        super().__init__(
            prog=prog,
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **kwargs,
        )
        self._given: list[str] = []

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As ever; the words are kept for `error`."""
        self._given = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """The usage, and what is wrong; a misspelt option is answered by the nearest."""
        known = self._names()
        given = {word.partition("=")[0] for word in self._given if word.startswith("--")} - known
        near = sorted(name for word in given for name in difflib.get_close_matches(word, known, n=1))
        hint = f". Did you mean {', '.join(near)}?" if near else ""
        super().error(f"{message}{hint}")

    def _names(self) -> set[str]:
        """The options of this verb and of those below it."""
        below = [a.choices.values() for a in self._actions if isinstance(a, argparse._SubParsersAction)]
        return {name for action in self._actions for name in action.option_strings}.union(
            *(parser._names() for parsers in below for parser in parsers)
        )

    def verbs(self) -> Callable[..., Parser]:
        """For verbs below a verb: `add(name, text)` gives the parser of one."""
        made: Any = _below
        below = self.add_subparsers(dest="command", required=True, metavar="VERB", parser_class=made)
        return lambda name, text, **kwargs: below.add_parser(
            name, help=text.splitlines()[0], text=text, **kwargs
        )

    def shared(self, *names: str, **changes: Any) -> None:
        """Add options of the vocabulary; `changes` go to all of them, e.g. another help or default."""
        for name in names:
            if name == "--split":
                changes.setdefault("type", split)
            elif name in ("--nproc", "--shard-size"):
                changes.setdefault("type", count)
            known = OPTIONS[name] | changes
            known.setdefault("dest", name.strip("-").replace("-", "_"))
            self.add_argument(name, **known)
            for spelling in EARLIER.get(name, []):
                hidden = {key: known[key] for key in ("type", "dest") if key in known}
                self.add_argument(spelling, default=argparse.SUPPRESS, help=argparse.SUPPRESS, **hidden)


def add_machines(p: Parser) -> Any:
    """Options that say how many processes run, and where."""
    group = p.add_argument_group("machines and clusters")
    p.shared("--nproc")
    add = group.add_argument
    add("--nnodes", type=count, default=1, metavar="N", help="machines; the same line on each of them")
    add("--rdzv-endpoint", type=endpoint, metavar="HOST:PORT", help="where the machines meet")
    add("--rdzv-id", default="mmpt", metavar="ID", help="keeps jobs with one endpoint apart")
    add("--node-rank", type=int, metavar="K", help="number of this machine (default: as they arrive)")
    return group


def topology_of(args: argparse.Namespace) -> Topology:
    """What those options say."""
    return Topology(args.nnodes, args.nproc, args.rdzv_endpoint, args.rdzv_id, args.node_rank)


def _below(prog: str, text: str, **kwargs: Any) -> Parser:
    return Parser(prog, text, **kwargs)


def typed(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """`kind` as the type of an option: the message of its ValueError becomes the parser's."""

    def convert(text: str) -> Any:
        try:
            return kind(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return convert


def count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def split(text: str) -> str:
    """train, valid or test; `val`, as files are named, is valid."""
    name = {"val": "valid"}.get(text, text)
    if name not in SPLITS:
        raise argparse.ArgumentTypeError(f"expected {', '.join(SPLITS)}, got {text!r}")
    return name


def endpoint(text: str) -> str:
    """HOST:PORT."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise argparse.ArgumentTypeError(f"expected HOST:PORT, got {text!r}")
    return text


def pair(text: str) -> tuple[str, str]:
    """NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    return name, value


def speak(quiet: bool = False) -> None:
    """What the library logs becomes the command's words: `mmpt.lines` on stdout, all else on stderr."""
    logging.getLogger("mmpt").setLevel(logging.WARNING if quiet else logging.INFO)
    lines = logging.getLogger("mmpt.lines")
    lines.handlers, lines.propagate = [_To("stdout")], False
    root = logging.getLogger()
    root.handlers = [*(handler for handler in root.handlers if not isinstance(handler, _To)), _To("stderr")]
    if quiet:
        os.environ["TQDM_DISABLE"] = "1"


class _To(logging.Handler):
    """Writes plain messages, at once, to what is stdout or stderr now."""

    def __init__(self, stream: str):
        super().__init__()
        self.stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=getattr(sys, self.stream), flush=True)


def progress(unit: str) -> Callable[..., Iterator]:
    """A bar with rate and time left round anything that is counted; silent where stderr is a file."""
    from tqdm import tqdm

    return lambda items, label=None: tqdm(items, desc=label, unit=unit, disable=None, leave=False)
