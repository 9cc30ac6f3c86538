"""Shards of other sizes or of fewer videos (split), and several folders in one (merge).

Features and token shards are written together, videos in the order of the sources (or of `--list`), numbered
from 0. `<split>_meta.pkl` comes last, so that an unfinished folder cannot be trained on. Stopped in the
middle, the same command goes on; another one is refused.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from mmpt.processors.store.shard_cache import ShardCache
from mmpt.processors.store.stats import NAME, kinds
from mmpt.utils import ShardWriter, atomic_write, load_index, save_plain_pickle
from mmpt.utils.shardedtensor import in_shards, read_manifest
from mmpt.utils.text import read_json

logger = logging.getLogger(__name__)

PLAN = ".rewrite.json"
SPLITS = ("train", "val")


@dataclass(frozen=True)
class Place:
    """Where a video lies in a source."""

    folder: Path
    shard: int
    row: int


def rewrite(
    sources: Sequence[Path], target: Path, shard_size: int = 4096, wanted: Sequence[str] | None = None
) -> dict[str, dict[int, list[str]]]:
    """Write the target.

    Args:
        sources: folders of shards.
        target: new folder.
        shard_size: videos per shard.
        wanted: keep these videos, in this order; None: all.

    Returns:
        Split -> shard number -> ids.

    Raises:
        ValueError: another command began the folder, the sources do not go together, or hold no wanted video.
    """
    _check_plan(sources, target, shard_size, wanted)
    target.mkdir(parents=True, exist_ok=True)
    written = {}
    for split in SPLITS:
        videos = _videos(sources, split, wanted)
        if videos:
            written[split] = _rewrite_split(sources, target, shard_size, split, videos)
    if not written:
        raise ValueError(
            f"{', '.join(map(str, sources))}: no train_meta.pkl or val_meta.pkl with a wanted video in it."
        )
    for split, meta in written.items():
        save_plain_pickle(meta, target / f"{split}_meta.pkl")
    (target / PLAN).unlink()
    return written


def _check_plan(sources: Sequence[Path], target: Path, shard_size: int, wanted: Sequence[str] | None) -> None:
    """Refuse to go on with a folder that another command began, or that is finished."""
    plan = {
        "sources": [str(source.resolve()) for source in sources],
        "manifests": [
            hashlib.sha256(json.dumps(read_manifest(source), sort_keys=True).encode()).hexdigest()
            for source in sources
        ],
        "shard_size": shard_size,
        "list": None if wanted is None else hashlib.sha256("\n".join(wanted).encode()).hexdigest(),
    }
    path = target / PLAN
    if path.exists():
        if read_json(path, dict) != plan:
            raise ValueError(
                f"{target}: begun with other arguments or other sources. Give those again, or empty the "
                "folder."
            )
    elif any(target.glob("*_data.npy")):
        raise ValueError(f"{target}: already holds shards. Give a new folder.")
    else:
        with atomic_write(path, "w") as file:
            json.dump(plan, file)


def _videos(sources: Sequence[Path], split: str, wanted: Sequence[str] | None) -> dict[str, Place]:
    """Id -> place, in the order to write; an id that several sources hold comes from the first."""
    places: dict[str, Place] = {}
    repeated = 0
    for source in sources:
        path = source / f"{split}_meta.pkl"
        for shard, ids in (load_index(path) if path.exists() else {}).items():
            for row, name in enumerate(ids):
                repeated += name in places
                places.setdefault(name, Place(source, shard, row))
    if repeated:
        logger.warning("%s: %d videos are there more than once; the first one is taken", split, repeated)
    return places if wanted is None else {name: places[name] for name in wanted if name in places}


def _kinds(sources: Sequence[Path], split: str) -> list[tuple[str, str]]:
    """(text before, text after) `<split>_<k>` in the shard names; the same in every source that has the
    split."""
    found = {}
    for source in sources:
        matches = filter(None, (NAME.fullmatch(names[0]) for names in kinds(source).values()))
        of_source = {(match["before"], match["after"]) for match in matches if match["split"] == split}
        if of_source:
            found[source] = of_source
    if not found:
        raise ValueError(
            f"{', '.join(map(str, sources))}: {split}_meta.pkl lists videos, but there are no shards of "
            "that split."
        )
    everywhere, anywhere = set.intersection(*found.values()), set.union(*found.values())
    if everywhere != anywhere:
        missing = [f"{before}{split}_*{after}" for before, after in sorted(anywhere - everywhere)]
        raise ValueError(
            f"{', '.join(missing)}: in some of {', '.join(map(str, found))} only. All need the same kinds "
            "of shards."
        )
    return sorted(everywhere)


def _rewrite_split(
    sources: Sequence[Path], target: Path, shard_size: int, split: str, videos: dict[str, Place]
) -> dict[int, list[str]]:
    meta = in_shards(list(videos), shard_size)
    shards = ShardCache()
    for before, after in _kinds(sources, split):
        passport = _passport(sources, split, before, after)
        for k, ids in tqdm(meta.items(), desc=f"{before}{split}{after}", unit="shard", disable=None):
            name = f"{before}{split}_{k}{after}"
            if name in read_manifest(target):  # of an earlier run: entered only when whole
                continue
            with ShardWriter(target / name, passport=passport) as writer:
                for video in ids:
                    place = videos[video]
                    writer.append(shards(f"{place.folder}/{before}{split}_{place.shard}{after}")[place.row])
    return meta


def _passport(sources: Sequence[Path], split: str, before: str, after: str) -> dict:
    """The one passport of all shards of a kind."""
    found = {json.dumps(passport, sort_keys=True) for passport in _passports(sources, split, before, after)}
    if len(found) > 1:
        raise ValueError(
            f"{before}{split}_*{after}: the shards have different passports, which do not mix: "
            f"{' and '.join(sorted(found))}."
        )
    return json.loads(found.pop()) if found else {}


def _passports(sources: Sequence[Path], split: str, before: str, after: str) -> Iterator[dict]:
    for source in sources:
        for name, entry in read_manifest(source).items():
            match = NAME.fullmatch(name)
            if match and (match["before"], match["split"], match["after"]) == (before, split, after):
                yield entry["passport"]
