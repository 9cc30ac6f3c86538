"""Features of several modalities: shards from folders, and which items lack what.

    python -m mmpt_cli.modalities check projects/retri/gram/vtt.yaml  # every split that the file names
    python -m mmpt_cli.modalities shards data/vtt/annotation_train.json --split train --out data/vtt/shards \\
        --from video=data/vtt/feat_s3d --from audio=data/vtt/feat_audio --rate audio=2

With `--strict`, `check` exits with 1 where anything is missing. `shards` writes `<out>/<name>/train_<k>` and
`train_meta.pkl` with the features of the annotation's items, in their order; what has no file is left out and
stays missing.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mmpt.config import DatasetConfig, load_config
from mmpt.processors.base import MetaProcessor
from mmpt.processors.modalities.modalities import lacking, read_annotation
from mmpt.processors.store.features import FeatureFolder, version_suffixes
from mmpt.utils import ShardWriter, save_plain_pickle
from mmpt.utils.log import short_errors

NAMED = 5


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="list the ids that lack each modality")
    check.add_argument("config", help="project file with dataset.modalities")
    check.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="overwrite a key of the project file"
    )
    check.add_argument("--json", metavar="PATH", help="write all ids there: {split: {modality: [id, ...]}}")
    check.add_argument("--strict", action="store_true", help="exit with 1 if anything is missing")
    shards = commands.add_parser("shards", help="turn folders of <id>.npy into shards")
    shards.add_argument("annotation", help="JSON list of the split's items")
    shards.add_argument(
        "--split", choices=("train", "val"), required=True, help="name of the shards; tests read val"
    )
    shards.add_argument("--out", required=True, help="folder that gets a folder per modality")
    shards.add_argument(
        "--from",
        dest="folders",
        action="append",
        required=True,
        metavar="NAME=FOLDER",
        help="a modality and its folder",
    )
    shards.add_argument(
        "--rate",
        dest="rates",
        action="append",
        default=[],
        metavar="NAME=N",
        help="vectors per second, 1 unless given",
    )
    shards.add_argument(
        "--versions",
        type=int,
        default=1,
        metavar="N",
        help="files <id>_aug0.npy ... of N augmentations, side by side",
    )
    shards.add_argument("--per-shard", type=int, default=4096, help="items of one shard")
    return parser.parse_args(argv)


def check(config: DatasetConfig, source: str) -> dict[str, dict[str, list[str]]]:
    """Split -> modality -> ids that lack it, of the splits whose list is there."""
    found = {}
    for split, key in MetaProcessor.SPLIT_KEYS.items():
        path = getattr(config, key)
        if path is not None:
            items = read_annotation(path)
            found[split] = lacking(items, replace(config, split=split))
            show(split, path, len(items), found[split])
    if not found:
        raise ValueError(f"{source}: no dataset.train_path, val_path or test_path to check.")
    return found


def show(split: str, path: str, n_items: int, missing: Mapping[str, Sequence[str]]) -> None:
    print(f"{split}: {path}, {n_items} items")
    for name, ids in missing.items():
        some = f": {', '.join(ids[:NAMED])}{', ...' if len(ids) > NAMED else ''}" if ids else ""
        print(
            f"  {name}: {len(ids)} missing "
            f"({len(ids) / n_items:.1%}){some}{'; ABSENT EVERYWHERE' if len(ids) == n_items else ''}"
        )


def write_shards(
    sources: Sequence[str], store: FeatureFolder, out: Path, split: str, rate: float, per_shard: int
) -> int:
    """Shards of the features in `store`, in the order of `sources`; returns how many sources have some.

    Raises:
        FileNotFoundError: none has.
    """
    there = [source for source in sources if source in store]
    if not there:
        raise FileNotFoundError(
            f"{store.path}: holds <id>{store.suffixes[0]}.npy of none of the {len(sources)} ids, e.g. "
            f"{sources[0]}{store.suffixes[0]}.npy."
        )
    out.mkdir(parents=True, exist_ok=True)
    meta = {k: there[start : start + per_shard] for k, start in enumerate(range(0, len(there), per_shard))}
    for k, members in meta.items():
        with ShardWriter(out / f"{split}_{k}", passport={"seconds_per_feature": 1 / rate}) as writer:
            for source in members:
                writer.append(np.asarray(store(source)))
    save_plain_pickle(meta, out / f"{split}_meta.pkl")
    return len(there)


def pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    """`name=value` texts as a dict."""
    wrong = [text for text in texts if "=" not in text]
    if wrong:
        raise SystemExit(f"{option} {wrong[0]}: expected NAME=VALUE.")
    return dict(text.split("=", 1) for text in texts)


def rate(name: str, text: str, folders: Mapping[str, str]) -> float:
    """Vectors per second of one of the modalities."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if value <= 0 or name not in folders:
        expected = (
            f"a modality of --from ({', '.join(folders)})" if name not in folders else "a number above 0"
        )
        raise SystemExit(f"--rate {name}={text}: expected {expected}.")
    return value


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    short_errors()
    if args.command == "check":
        found = check(load_config(args.config, args.set).dataset, args.config)
        if args.json:
            Path(args.json).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return int(any(ids for missing in found.values() for ids in missing.values()) and args.strict)
    sources = list(dict.fromkeys(item.source for item in read_annotation(args.annotation)))
    folders = pairs(args.folders, "--from")
    rates = {name: rate(name, text, folders) for name, text in pairs(args.rates, "--rate").items()}
    for name, folder in folders.items():
        store = FeatureFolder(folder, version_suffixes(args.versions), f"--from {name}")
        n = write_shards(
            sources, store, Path(args.out) / name, args.split, rates.get(name, 1.0), args.per_shard
        )
        print(f"{name}: {n} of {len(sources)} written to {Path(args.out) / name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
