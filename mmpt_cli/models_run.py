"""What the verbs of `mmpt models` call."""

from __future__ import annotations

import argparse
import dataclasses
import json

from tqdm import tqdm

from mmpt.zoo import Entry, entry_of, find, known
from mmpt.zoo import add as note
from mmpt.zoo.fetch import get as fetch


def list(args: argparse.Namespace) -> int:
    """A line for each."""
    found = {
        name: entry
        for name, entry in known().items()
        if args.word.lower() in f"{name} {entry.about} {entry.trained_on} {entry.kind}".lower()
    }
    if args.json:
        print(json.dumps({name: _facts(entry) for name, entry in found.items()}, indent=1))
    else:
        width = max(map(len, found), default=0)
        for name, entry in found.items():
            print(f"{name:<{width}}  {entry.kind:<8}  {entry.state:<10}  {entry.about}")
    return 0 if found else 1


def show(args: argparse.Namespace) -> int:
    """All that is known of one."""
    facts = _facts(find(args.name))
    if args.json:
        print(json.dumps(facts, indent=1))
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
    facts = {"about": args.about, "trained_on": args.trained_on, "licence": args.licence}
    entry = entry_of(args.weights, args.project, name=args.name, backbone=args.backbone, **facts)
    print(f"{args.name}: noted in {note(entry, args.replace)}")
    return 0


def _facts(entry: Entry) -> dict[str, object]:
    values = {field.name: getattr(entry, field.name) for field in dataclasses.fields(entry)}
    facts = {key: dict(value) if isinstance(value, dict) else value for key, value in values.items() if value}
    return facts | {"state": entry.state}
