"""What the verbs of `mmpt shards` call."""

from __future__ import annotations

import argparse
import json

from mmpt.processors.modalities.modalities import read_annotation
from mmpt.processors.store import build as building
from mmpt.processors.store import rewrite as rewriting
from mmpt.processors.store import stats as describing
from mmpt.processors.store import verify as verifying
from mmpt.processors.store.features import FeatureFolder, version_suffixes
from mmpt.utils.text import read_ids

SHARD_NAMES = {"train": "train", "valid": "val", "test": "val"}


def build(args: argparse.Namespace) -> int:
    """Features of single videos to shards."""
    told = {key: value for key in building.UNKNOWN if (value := getattr(args, key)) is not None}
    name, ids = SHARD_NAMES[args.split], read_ids(args.list)
    built = building.build(args.features, ids, args.target, name, args.shard_size, args.dtype, told)
    print(
        f"{args.target}: {built.n_videos} videos in {built.n_shards} shards; "
        f"{len(built.unreadable)} unreadable, see {name}_unreadable.txt"
    )
    return 0


def verify(args: argparse.Namespace) -> int:
    """1 where something is wrong."""
    verdict = verifying.verify(args.folder, args.resume, args.seal)
    for note in verdict.notes:
        print(f"note {note}")
    for problem in verdict.problems:
        print(f"BAD {problem}")
    print(
        f"{args.folder}: {verdict.n_shards} shards, {len(verdict.problems)} problems"
        + (f", {verdict.skipped} had passed before" if verdict.skipped else "")
        + (f", {len(verdict.unlisted)} without checksum (no manifest entry)" if verdict.unlisted else "")
    )
    return 1 if verdict.problems else 0


def stats(args: argparse.Namespace) -> int:
    """1 where there is nothing."""
    report = describing.report(args.folder)
    if args.json:
        print(json.dumps(report, indent=1))
        return 0 if report else 1
    for kind, values in report.items():
        print(kind)
        for key, value in values.items():
            print(f"    {key}: {f'{value:,.2f}' if isinstance(value, float) else value}")
    return 0 if report else 1


def split(args: argparse.Namespace) -> int:
    """Shards of other sizes, of fewer videos, or of several folders."""
    wanted = read_ids(args.list) if args.list else None
    written = rewriting.rewrite(args.sources, args.target, args.shard_size, wanted)
    counts = (
        f"{name}: {sum(map(len, meta.values()))} videos in {len(meta)} shards"
        for name, meta in written.items()
    )
    print(f"{args.target}: {'; '.join(counts)}")
    return 0


def modalities(args: argparse.Namespace) -> int:
    """Folders of several modalities to shards, in the order of an annotation."""
    sources = list(dict.fromkeys(item.source for item in read_annotation(args.annotation)))
    folders = dict(args.folders)
    rates = {name: _rate(name, text, folders) for name, text in args.rates}
    for name, folder in folders.items():
        store = FeatureFolder(folder, version_suffixes(args.versions), f"--from {name}")
        words = args.out / name, SHARD_NAMES[args.split], rates.get(name, 1.0), args.shard_size
        n = building.build_modality(sources, store, *words)
        print(f"{name}: {n} of {len(sources)} written to {args.out / name}")
    return 0


def _rate(name: str, text: str, folders: dict[str, str]) -> float:
    expected = "a number above 0"
    if name not in folders:
        expected = f"a modality of --from ({', '.join(folders)})"
    elif text.replace(".", "", 1).isdigit() and float(text) > 0:
        return float(text)
    raise ValueError(f"--rate {name}={text}: expected {expected}.")
