"""What the verbs of `mmpt models` call."""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path

from tqdm import tqdm

from mmpt.zoo import Entry, find, known
from mmpt.zoo import add as note
from mmpt.zoo.entries import VARIABLE
from mmpt.zoo.fetch import get as fetch
from mmpt_cli.models import as_json

WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json")


def list(args: argparse.Namespace) -> int:
    """A line for each."""
    found = {
        name: entry
        for name, entry in known().items()
        if args.word.lower() in f"{name} {entry.about} {entry.trained_on} {entry.kind}".lower()
    }
    if args.json:
        as_json({name: _facts(entry) for name, entry in found.items()})
    else:
        width = max(map(len, found), default=0)
        for name, entry in found.items():
            print(f"{name:<{width}}  {entry.kind:<8}  {entry.state:<10}  {entry.about}")
    return 0 if found else 1


def show(args: argparse.Namespace) -> int:
    """All that is known of one."""
    facts = _facts(find(args.name))
    if args.json:
        as_json(facts)
        return 0
    for key, value in facts.items():
        rows = [f"{k}  {v}".rstrip() for k, v in value.items()] if isinstance(value, dict) else [value]
        for row in rows:
            print(f"{key + ':':<12}{row}")
            key = ""
    return 0


def get(args: argparse.Namespace) -> int:
    """Fetch."""
    entry = find(args.name)
    with tqdm(unit="B", unit_scale=True, disable=None, leave=False) as bar:

        def told(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        places = fetch(entry, told)
    print("\n".join(f"{entry.name}: {place}" for place in places))
    return 0


def add(args: argparse.Namespace) -> int:
    """Note a model."""
    path = Path(args.weights)
    facts = {"about": args.about, "trained_on": args.trained_on, "licence": args.licence}
    facts |= {"backbone": args.backbone}
    if path.is_dir():
        file = next((path / name for name in WEIGHTS if (path / name).is_file()), None)
        if file is None:
            raise ValueError(f"{path}: a folder without weights ({', '.join(WEIGHTS)}).")
        facts |= {"files": {_noted(file): ""}}
    elif path.is_file():
        if args.project is None:
            raise ValueError(
                f"{path}: a checkpoint needs the project file that reads it; give --project FILE."
            )
        facts |= {"files": {_noted(path): ""}, "project": args.project}
    elif args.weights.count("/") == 1 and not path.suffix:
        facts |= {"hub": args.weights}
    else:
        raise ValueError(f"{path}: no such file or folder, and no hub id (OWNER/NAME).")
    written = note(Entry(name=args.name, **facts), args.replace)
    print(f"{args.name}: noted in {written}")
    return 0


def _noted(path: Path) -> str:
    """As the list has it: from here on, or in a list that several folders share, from the root on."""
    return str(path.absolute()) if os.environ.get(VARIABLE) else os.path.relpath(path)


def _facts(entry: Entry) -> dict[str, object]:
    values = {field.name: getattr(entry, field.name) for field in dataclasses.fields(entry)}
    facts = {key: dict(value) if isinstance(value, dict) else value for key, value in values.items() if value}
    return facts | {"state": entry.state}
