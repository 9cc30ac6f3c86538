"""What stands behind the `dataset:` section of a project file, and what is wrong with it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.config import Config, DatasetConfig, load_config
from mmpt.datasets import build_dataset
from mmpt.evaluators import sanity
from mmpt.evaluators.published import PUBLISHED
from mmpt.extraction.packing import read_passport
from mmpt.processors import MetaProcessor, MissingData
from mmpt.processors.downstream import read_database
from mmpt.processors.sets.crosstask import read_segments
from mmpt.registry import META_PROCESSORS
from mmpt.utils.shardedtensor import MANIFEST, read_manifest
from mmpt_cli.data_files import description

FINE, NOTE, WARNING, ERROR = "ok", "note", "warning", "error"
SAMPLED = 20  # feature files whose numbers are looked at; of the others only the shape is read
RATE_TOLERANCE = 0.1
CHUNK_S = 5  # DiDeMo
NAMED = 3


@dataclass(frozen=True)
class Finding:
    """One line of the report; `level` is ok, note, warning or error."""

    level: str
    text: str

    def __str__(self) -> str:
        return f"{self.level:8}{self.text}"


def verify(config: Config) -> Iterator[Finding]:
    """Everything there is to say about the data of a project file, in the order of its keys."""
    yield from check_files(config.dataset)
    if config.dataset.meta_processor is None:
        yield Finding(
            ERROR, f"{config.source}: dataset.meta_processor is not set; nothing says how the files are read"
        )
        return
    for split in splits(config):
        meta, findings = read_split(config, split)
        yield from findings
        if meta is not None:
            yield from check_counts(config, split, meta)
            yield from check_sanity(config, split, meta)
            yield from check_features(config.dataset, split, list(annotated(config.dataset, meta)))
    yield from check_passport(config.dataset)
    yield from point_further(config)
    yield from check_checkpoint(config)


def splits(config: Config) -> list[str]:
    """The splits that a project file uses: a test file its test, a training file training and validation."""
    if config.dataset.split == "test" or config.predictor:
        return ["test"]
    named = {"train": config.dataset.train_path, "valid": config.dataset.val_path}
    return [split for split, path in named.items() if path]


def check_files(config: DatasetConfig) -> Iterator[Finding]:
    """One finding per path of the section."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if (
            not (isinstance(value, str) and field.name.endswith(("_path", "_dir", "_annotation")))
            or field.name == "target_dir"
        ):
            continue
        path, about = Path(value), description(field.name, config)
        where = f"dataset.{field.name}: {value}"
        if field.name == "tfeat_dir":
            found = len(list(path.parent.glob(f"{path.name}*"))) if path.parent.is_dir() else 0
            yield Finding(FINE if found else ERROR, f"{where}*: {found} files; expected {about}")
        elif path.is_dir():
            yield Finding(FINE, f"{where}: {sum(1 for _ in path.iterdir())} entries; {about}")
        elif path.is_file():
            yield Finding(FINE, f"{where}: {path.stat().st_size} bytes; {about}")
        else:
            yield Finding(ERROR, f"{where}: not there; expected {about}")


def read_split(config: Config, split: str) -> tuple[MetaProcessor | None, list[Finding]]:
    """The listed items of a split, or why they cannot be read."""
    policy = "mask" if config.dataset.on_missing == "mask" else "skip"  # never stops at the first id
    dataset = dataclasses.replace(config.dataset, split=split, on_missing=policy, dup=None)
    try:
        meta = META_PROCESSORS.get(dataset.meta_processor)(dataset)
        build_dataset(dataclasses.replace(config, dataset=dataset), split)
    except (ValueError, KeyError, OSError, MissingData) as error:
        why = (
            f"not read, as {error.filename} is not there"
            if isinstance(error, OSError) and error.filename
            else error
        )
        return None, [Finding(ERROR, f"{split}: {why}")]
    return meta, []


def check_counts(config: Config, split: str, meta: MetaProcessor) -> Iterator[Finding]:
    """Items and videos against the published numbers; ids left out."""
    ids = [video for index in range(len(meta)) for video in videos_of(meta[index][0])]
    n_missing = sum(len(names) for names in meta.missing.values())
    found = f"{split}: {len(meta)} items of {len(set(ids))} videos"
    for reason, names in meta.missing.items():
        missing = list(dict.fromkeys(names))
        listed = ", ".join(missing[:NAMED]) + (", ..." if len(missing) > NAMED else "")
        count = (
            f"{len(names)} items of {len(missing)} ids" if len(names) > len(missing) else f"{len(names)} ids"
        )
        yield Finding(WARNING, f"{split}: {count} {reason}: {listed}; every published number counts them")
    known = PUBLISHED.get((config.dataset.meta_processor, split), [])
    if not known:
        yield Finding(NOTE, f"{found}; no published count is known")
    elif any(count.items == len(meta) and count.videos in (None, len(set(ids))) for count in known):
        match = next(count for count in known if count.items == len(meta))
        yield Finding(FINE, f"{found}, as published: {match.source}")
    else:
        expected = " or ".join(map(str, known))
        left_out = f" and {n_missing} left out" if n_missing else ""
        yield Finding(WARNING, f"{found}{left_out}; published: {expected}. Numbers do not compare.")


def check_sanity(config: Config, split: str, meta: MetaProcessor) -> Iterator[Finding]:
    """Mistakes that give plausible, wrong numbers."""
    if split != "test":
        return
    items = Counter(str(meta[index][0]) for index in range(len(meta)))
    if config.metric == "RetrievalMetric":
        level = ERROR if len(meta) > sanity.SEVERAL_CAPTIONS * len(items) else NOTE
        yield from (Finding(level, f"test: {text}") for text in sanity.repeated_items(len(meta), len(items)))
    texts = [item for item in (meta[index][1] for index in range(len(meta))) if isinstance(item, str)]
    if len(texts) > len(set(texts)):
        yield Finding(
            NOTE,
            f"test: {len(texts) - len(set(texts))} captions repeat an earlier one; eval.tie_rule places them",
        )


def annotated(config: DatasetConfig, meta: MetaProcessor) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    """(video, segments in seconds) of the items of a split; items without times have no segments."""
    name = config.meta_processor or ""
    if name.startswith("DiDeMo"):
        for (video, _), times in zip(meta.data, meta.times, strict=True):
            yield video, [(CHUNK_S * first, CHUNK_S * (last + 1)) for first, last in times]
        return
    for index in range(len(meta)):
        video, text = meta[index]
        if name.startswith("CrossTask"):
            path = Path(config.annotation_path) / f"{video[0]}_{video[1]}.csv"
            yield video[1], [(start, end) for _, start, end in read_segments(path)]
        elif name.startswith("COIN"):
            yield video, [(start, end) for _, start, end in text]
        elif name.startswith("HTMAlign"):
            yield video, [(start, end) for _, start, end, _ in text]
        elif name in ("YoucookMetaProcessor", "YoucookNLGMetaProcessor"):
            yield video[0], [(video[1], video[2])]
        elif name.startswith("FewShot"):
            yield from ((one, []) for one in video)
        elif isinstance(video, str):
            yield video, []


def check_features(
    config: DatasetConfig, split: str, segments: Sequence[tuple[str, list[tuple[float, float]]]]
) -> Iterator[Finding]:
    """Shape, numbers and clock of the feature files, and captions that lie outside them."""
    folder = Path(config.vfeat_dir or "")
    videos = [
        video
        for video in dict.fromkeys(video for video, _ in segments)
        if (folder / f"{video}.npy").is_file()
    ]
    if not videos:
        return
    try:
        shapes = {
            video: np.load(folder / f"{video}.npy", mmap_mode="r", allow_pickle=False).shape
            for video in videos
        }
    except (ValueError, EOFError) as error:
        yield Finding(ERROR, f"{split}: a feature file in {folder} is not a whole .npy file ({error})")
        return
    empty = [video for video, shape in shapes.items() if len(shape) != 2 or not shape[0]]
    if empty:
        yield Finding(
            ERROR,
            f"{split}: {len(empty)} videos without a single (seconds, features) row: "
            f"{', '.join(empty[:NAMED])}",
        )
    widths = Counter(shape[-1] for shape in shapes.values())
    if len(widths) > 1:
        yield Finding(
            ERROR, f"{split}: features of several widths: {dict(widths)}; one backbone must have made all"
        )
    yield from _check_numbers(split, folder, videos)
    lengths = {video: shape[0] for video, shape in shapes.items()}
    yield from _check_clock(config, split, lengths)
    times = [(video, end) for video, ranges in segments for _, end in ranges if video in lengths]
    outside = [(video, end) for video, end in times if end > lengths[video] + 1]
    if outside:
        named = ", ".join(f"{video} at {end:.0f} s of {lengths[video]}" for video, end in outside[:NAMED])
        yield Finding(
            WARNING, f"{split}: {len(outside)} of {len(times)} segments end behind their features: {named}"
        )
    elif times:
        yield Finding(FINE, f"{split}: all {len(times)} segments lie inside their features")


def _check_numbers(split: str, folder: Path, videos: Sequence[str]) -> Iterator[Finding]:
    sample = [videos[i] for i in np.linspace(0, len(videos) - 1, min(SAMPLED, len(videos))).astype(int)]
    norms = []
    for video in sample:
        rows = np.load(folder / f"{video}.npy", allow_pickle=False).astype(np.float32)
        if not np.isfinite(rows).all():
            yield Finding(
                ERROR, f"{split}: {video}: features hold NaN or infinite values; extract that video again"
            )
        elif rows.size:
            norms.append(float(np.linalg.norm(rows, axis=-1).mean()))
    if norms and not 0.98 < np.mean(norms) < 1.02:
        yield Finding(
            NOTE,
            f"{split}: rows have length {np.mean(norms):.2f}; the published S3D features are normalised to 1",
        )


def _check_clock(config: DatasetConfig, split: str, lengths: dict[str, int]) -> Iterator[Finding]:
    durations = {
        video: seconds for video, seconds in durations_of(config).items() if video in lengths and seconds
    }
    if not durations:
        return
    rate = float(np.median([lengths[video] / seconds for video, seconds in durations.items()]))
    if abs(rate - 1) > RATE_TOLERANCE:
        yield Finding(
            ERROR,
            f"{split}: features have {rate:.2f} rows per second of video (median of {len(durations)}), "
            "expected 1: every time in the "
            "annotations would point to the wrong rows. Extract at one feature per second.",
        )
    else:
        yield Finding(
            FINE, f"{split}: {rate:.2f} feature rows per second of video (median of {len(durations)})"
        )


def durations_of(config: DatasetConfig) -> dict[str, float]:
    """Video -> seconds, where the annotations say so."""
    path, key = config.trainval_annotation, "annotations"
    if (config.meta_processor or "").startswith("COIN"):
        path, key = config.test_path or config.train_path, "annotation"
    if not path:
        return {}
    return {video: entry.get("duration", 0.0) for video, entry in read_database(path, key).items()}


def check_passport(config: DatasetConfig) -> Iterator[Finding]:
    """What the features say about themselves."""
    folder = Path(config.vfeat_dir or "")
    if not config.vfeat_dir or not folder.is_dir():
        return
    manifest = read_manifest(folder)
    shards = [
        entry.get("passport") or {} for name, entry in manifest.items() if "." not in name
    ]  # token shards hold a dot
    passports = shards or [read_passport(folder)]
    different = list({str(sorted(passport.items())): passport for passport in passports}.values())
    if len(different) > 1:
        yield Finding(
            ERROR,
            f"{folder}: shards with {len(different)} different passports in {MANIFEST}; one backbone must "
            "have made all",
        )
    elif not different[0]:
        yield Finding(
            NOTE,
            f"{folder}: features without passport: nothing says which backbone made them, at which rate, "
            "normalised or not",
        )
    elif wrong := sanity.wrong_rate(str(folder), different):
        yield from (Finding(ERROR, text) for text in wrong)
    else:
        yield Finding(FINE, f"{folder}: passport {different[0]}")


def point_further(config: Config) -> Iterator[Finding]:
    """Which command looks into what this one only counts."""
    if config.dataset.modalities:
        yield Finding(
            NOTE, f"which ids lack which modality: python -m mmpt_cli.modalities check {config.source}"
        )
    if config.dataset.tfeat_dir:
        yield Finding(
            NOTE,
            f"checksums and contents of shards: python -m mmpt_cli.shards verify {config.dataset.vfeat_dir}",
        )


def check_checkpoint(config: Config) -> Iterator[Finding]:
    """Zero-shot means weights that saw no data set but the pre-training one."""
    path = config.fairseq.get("common_eval", {}).get("path")
    trained = Path(path).parent / "config.yaml" if path else None
    if not path or not trained.is_file():
        return
    dataset = load_config(trained).dataset
    data = {key: value for key in ("train_path", "tfeat_dir") if (value := getattr(dataset, key))}
    found = sanity.fine_tuned_as_zero_shot(config.source, path, {"project": str(trained), "data": data})
    yield from (Finding(WARNING, text) for text in found)


def videos_of(item: Any) -> list[str]:
    """The videos in what a meta processor calls an item.

    "abc"; ("abc", start, end); ("abc", index, shard, position); CrossTask's (task, "abc", steps, number of
    steps); an episode ("7/abc", "9/def", ...); a group of any of these, as a list.
    """
    if isinstance(item, list):
        return [video for member in item for video in videos_of(member)]
    if isinstance(item, str):
        return [item]
    if all(isinstance(part, str) for part in item):
        return list(item)
    return [item[1] if isinstance(item[1], str) else item[0]]
