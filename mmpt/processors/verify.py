"""What stands behind the `dataset:` section of a project file, and what is wrong with it.

Nothing here knows a data set: each says in its own file (`mmpt.processors.sets`) what its keys name, which
counts are published, and where its segments lie.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.config import Config, load_config
from mmpt.config.check import named_files
from mmpt.config.schema import DatasetConfig
from mmpt.processors.base import PARTS, MetaProcessor, MissingData, build_parts, counted
from mmpt.processors.captions.readers import check_captions, read_captions
from mmpt.processors.store.passport import damaged_seconds, passports_of, wrong_rate
from mmpt.processors.store.rates import feature_rate
from mmpt.processors.store.remote import is_remote
from mmpt.processors.store.verify import caption_findings
from mmpt.utils.shardedtensor import MANIFEST, load_feature, load_index
from mmpt.utils.text import first_of

FINE, NOTE, WARNING, ERROR = "ok", "note", "warning", "error"
SAMPLED = 500  # feature files whose numbers are looked at; of the others only the shape is read
RATE_TOLERANCE = 0.1
SEVERAL_CAPTIONS = 1.5  # captions per item: a published list may name a clip twice, this many are no accident
NAMED = 3


@dataclass(frozen=True)
class Finding:
    """One line of the report; `level` is ok, note, warning or error."""

    level: str
    text: str

    def __str__(self) -> str:
        return f"{self.level:8}{self.text}"


def verify(config: Config) -> Iterator[Finding]:
    """Everything there is to say about the data of a project file, in the order of its keys.

    The readers' warnings about ids that they leave out are switched off meanwhile: the findings count them.
    """
    with _quiet_readers():
        yield from check_files(config.dataset)
        if config.dataset.meta_processor is None:
            what = "dataset.meta_processor is not set; nothing says how the files are read"
            yield Finding(ERROR, f"{config.source}: {what}")
            return
        for split in splits(config):
            meta, findings = read_split(config, split)
            yield from findings
            if meta is not None:
                yield from check_counts(split, meta)
                yield from check_gallery(config, split, meta)
                yield from check_features(config.dataset, split, meta)
            yield from check_captions_of(config.dataset, split)
        yield from check_passport(config.dataset)
        yield from point_further(config)
        yield from check_checkpoint(config)


@contextmanager
def _quiet_readers() -> Iterator[None]:
    readers = logging.getLogger("mmpt.processors")
    level = readers.level
    readers.setLevel(logging.ERROR)
    try:
        yield
    finally:
        readers.setLevel(level)


def splits(config: Config) -> list[str]:
    """The splits that a project file uses: a test file its test, a training file training and validation."""
    if config.dataset.split == "test" or config.predictor:
        return ["test"]
    named = {"train": config.dataset.train_path, "valid": config.dataset.val_path}
    return [split for split, path in named.items() if path]


def descriptions(config: DatasetConfig) -> dict[str, str]:
    """Key -> what should stand behind it, from the classes that the section names."""
    found: dict[str, str] = {}
    for key, registry in PARTS.items():
        name = getattr(config, key)
        cls: type[Any] = registry.get(name) if name in registry.names() else object
        for base in reversed(cls.__mro__):
            found |= vars(base).get("FILES", {})
        if issubclass(cls, MetaProcessor):
            found |= dict.fromkeys(cls.SPLIT_KEYS.values(), cls.LIST)
    return found


def check_files(config: DatasetConfig) -> Iterator[Finding]:
    """One finding per path of the section."""
    described = descriptions(config)
    for key, value in named_files(vars(config)).items():
        path, about = Path(value), described.get(key, "")
        where, what = f"dataset.{key}: {value}", f"; {about}" if about else ""
        if key == "tfeat_dir":
            found = len(list(path.parent.glob(f"{path.name}*"))) if path.parent.is_dir() else 0
            yield Finding(FINE if found else ERROR, f"{where}*: {found} files; expected {about}")
        elif path.is_dir():
            yield Finding(FINE, f"{where}: {sum(1 for _ in path.iterdir())} entries{what}")
        elif path.is_file():
            yield Finding(FINE, f"{where}: {path.stat().st_size} bytes{what}")
        elif about:
            yield Finding(ERROR, f"{where}: not there; expected {about}")
        else:  # left by an included file of another data set
            yield Finding(NOTE, f"{where}: not there; no class of this file says that it reads it")


def read_split(config: Config, split: str) -> tuple[MetaProcessor | None, list[Finding]]:
    """The listed items of a split, or why they cannot be read."""
    policy = "mask" if config.dataset.on_missing == "mask" else "skip"  # never stops at the first id
    changes: dict[str, Any] = {"split": split, "on_missing": policy, "dup": None}
    dataset = dataclasses.replace(config.dataset, **changes)
    try:
        return build_parts(dataset, str(config.source))[0], []
    except (ValueError, KeyError, OSError, MissingData) as error:
        why = (
            f"not read, as {error.filename} is not there"
            if isinstance(error, OSError) and error.filename
            else error
        )
        return None, [Finding(ERROR, f"{split}: {why}")]


def check_counts(split: str, meta: MetaProcessor) -> Iterator[Finding]:
    """Items and videos against the published numbers; ids left out."""
    ids = [video for index in range(len(meta)) for video in meta.videos(index)]
    n_missing = sum(len(names) for names in meta.missing.values())
    found = f"{split}: {len(meta)} items of {len(set(ids))} videos"
    for reason, names in meta.missing.items():
        missing = list(dict.fromkeys(names))
        compared = "; every published number counts them" if meta.PUBLISHED else ""
        yield Finding(WARNING, f"{split}: {counted(names)} {reason}: {first_of(missing, NAMED)}{compared}")
    known = meta.PUBLISHED.get(split, ())
    if not known:
        yield Finding(NOTE, f"{found}; no published count is known")
    elif any(count.items == len(meta) and count.videos in (None, len(set(ids))) for count in known):
        match = next(count for count in known if count.items == len(meta))
        yield Finding(FINE, f"{found}, as published: {match.source}")
    else:
        expected = " or ".join(map(str, known))
        left_out = f" and {n_missing} left out" if n_missing else ""
        yield Finding(WARNING, f"{found}{left_out}; published: {expected}. Numbers do not compare.")


def repeated_items(n_listed: int, n_different: int) -> list[str]:
    """Sanity check: a gallery whose items stand under several rows; a query's own video is then also a wrong
    answer."""
    if n_different >= n_listed:
        return []
    found = f"the gallery lists {n_listed} items but only {n_different} different ones"
    if n_listed <= SEVERAL_CAPTIONS * n_different:
        return [f"{found}: a query's own video also stands under other rows, which lowers its rank."]
    return [
        f"{found}, {n_listed / n_different:.0f} captions for each: with all captions of a video in the "
        "gallery R@1 drops to a fraction "
        "(MSR-VTT has 20 per video). Use a list with one caption per video (MSR-VTT: "
        "MSRVTT_JSFUSION_test.csv)."
    ]


def check_gallery(config: Config, split: str, meta: MetaProcessor) -> Iterator[Finding]:
    """Items and captions that a test lists more than once."""
    if split != "test":
        return
    items = {str(meta[index][0]) for index in range(len(meta))}
    if config.metric == "RetrievalMetric":  # other metrics ask several questions about one item
        level = ERROR if len(meta) > SEVERAL_CAPTIONS * len(items) else NOTE
        yield from (Finding(level, f"test: {text}") for text in repeated_items(len(meta), len(items)))
    texts = [item for item in (meta[index][1] for index in range(len(meta))) if isinstance(item, str)]
    if len(texts) > len(set(texts)):
        yield Finding(
            NOTE,
            f"test: {len(texts) - len(set(texts))} captions repeat an earlier one; eval.tie_rule places them",
        )


def check_features(config: DatasetConfig, split: str, meta: MetaProcessor) -> Iterator[Finding]:
    """Shape, numbers and clock of the feature files, and captions that lie outside them."""
    folder, segments = Path(config.vfeat_dir or ""), list(meta.segments())
    videos = [
        video
        for video in dict.fromkeys(video for video, _ in segments)
        if (folder / f"{video}.npy").is_file()
    ]
    if not videos:
        return
    shapes, odd = {}, []
    for video in videos:
        try:
            shapes[video] = load_feature(folder / f"{video}.npy", mmap_mode="r").shape
        except ValueError as error:
            odd.append(str(error))
    yield from (Finding(ERROR, f"{split}: {text}") for text in odd[:NAMED])
    if odd:
        yield Finding(ERROR, f"{split}: {len(odd)} of {len(videos)} feature files cannot be used")
    if not shapes:
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
    yield from _check_numbers(split, folder, list(shapes))
    try:
        rate = feature_rate(config)
    except ValueError as error:
        yield Finding(ERROR, f"{split}: {error}")
        return
    lengths = {video: shape[0] / rate for video, shape in shapes.items()}
    yield from _check_clock(split, lengths, meta.durations(), rate)
    times = [(video, end) for video, ranges in segments for _, end in ranges if video in lengths]
    outside = [(video, end) for video, end in times if end > lengths[video] + 1]
    if outside:
        named = ", ".join(f"{video} at {end:.0f} s of {lengths[video]:g}" for video, end in outside[:NAMED])
        yield Finding(
            WARNING, f"{split}: {len(outside)} of {len(times)} segments end behind their features: {named}"
        )
    elif times:
        yield Finding(FINE, f"{split}: all {len(times)} segments lie inside their features")


def check_captions_of(config: DatasetConfig, split: str) -> Iterator[Finding]:
    """Timed captions against the features beside them: those of shards, or of a pickle."""
    features = config.vfeat_dir or ""
    if config.tfeat_dir:
        yield from _check_shards(features, config.tfeat_dir, "train" if split == "train" else "val", split)
    elif (
        (path := getattr(config, "caption_pkl_path", None))
        and Path(path).is_file()
        and Path(features).is_dir()
    ):
        files, rate = {file.stem: file for file in Path(features).glob("*.npy")}, feature_rate(config)
        try:
            captions = read_captions(path)
            lengths = {
                video: len(load_feature(files[video], "r")) / rate for video in captions if video in files
            }
        except ValueError as error:
            yield Finding(ERROR, f"{split}: {error}")
            return
        _, wrong = check_captions(captions, lengths, "drop")
        some = "; ".join(f"{video}: {texts[0]}" for video, texts in list(wrong.items())[:NAMED])
        level = ERROR if wrong else FINE
        yield Finding(
            level, f"{split}: captions of {len(wrong)} of {len(captions)} videos are impossible {some}"
        )


def _check_shards(features: str, captions: str, name: str, split: str) -> Iterator[Finding]:
    """Shards of captions against shards of features."""
    if is_remote(features) or is_remote(captions):
        yield Finding(NOTE, f"{split}: captions of remote shards are not compared with the features")
        return
    index = Path(features) / f"{name}_meta.pkl"
    if not index.is_file():
        return  # said where the split was read
    problems, notes = [], []
    try:
        for shard, ids in load_index(index).items():
            pair = f"{captions}{name}_{shard}.startends", f"{features}/{name}_{shard}"
            wrong, known = caption_findings(*pair, ids)
            problems += wrong
            notes += known
    except ValueError as error:
        problems.append(str(error))
    yield from (Finding(ERROR, f"{split}: {text}") for text in problems)
    yield from (Finding(NOTE, f"{split}: {text}") for text in notes)
    if not problems:
        yield Finding(FINE, f"{split}: captions in {captions}{name}_* are in order and fit the features")


def _check_numbers(split: str, folder: Path, videos: Sequence[str]) -> Iterator[Finding]:
    sample = [videos[i] for i in np.linspace(0, len(videos) - 1, min(SAMPLED, len(videos))).astype(int)]
    norms, bad = [], 0
    for video in sample:
        rows = load_feature(folder / f"{video}.npy").astype(np.float32)
        if not np.isfinite(rows).all():
            bad += 1
            yield Finding(
                ERROR, f"{split}: {video}: features hold NaN or infinite values; extract that video again"
            )
        elif rows.size:
            norms.append(float(np.linalg.norm(rows, axis=-1).mean()))
    if not bad:
        looked = f"all {len(videos)}" if len(sample) == len(videos) else f"{len(sample)} of {len(videos)}"
        yield Finding(FINE, f"{split}: finite numbers in {looked} feature files")
    if norms and not 0.98 < np.mean(norms) < 1.02:
        yield Finding(
            NOTE,
            f"{split}: rows have length {np.mean(norms):.2f}; the published S3D features are normalised to 1",
        )


def _check_clock(
    split: str, lengths: dict[str, float], seconds: dict[str, float], expected: float
) -> Iterator[Finding]:
    durations = {video: seconds[video] for video in lengths if seconds.get(video)}
    if not durations:
        return
    share = float(np.median([lengths[video] / seconds for video, seconds in durations.items()]))
    rate = expected * share
    if abs(share - 1) > RATE_TOLERANCE:
        yield Finding(
            ERROR,
            f"{split}: features have {rate:.2f} rows per second of video (median of {len(durations)}), "
            f"expected {expected:g}: every time in the annotations would point to the wrong rows. Say "
            "dataset.vfeat_rate, or extract at one feature per second.",
        )
    else:
        yield Finding(
            FINE, f"{split}: {rate:.2f} feature rows per second of video (median of {len(durations)})"
        )


def check_passport(config: DatasetConfig) -> Iterator[Finding]:
    """What the features say about themselves."""
    folder = Path(config.vfeat_dir or "")
    if not config.vfeat_dir or not folder.is_dir():
        return
    different = passports_of(folder)
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
    elif wrong := wrong_rate(str(folder), different):
        yield from (Finding(ERROR, text) for text in wrong)
    else:
        yield Finding(FINE, f"{folder}: passport {different[0]}")
    if lost := damaged_seconds(folder):
        yield Finding(
            NOTE, f"{folder}: {lost:.1f} s of the footage were concealed or missing, see damage.json there"
        )


def point_further(config: Config) -> Iterator[Finding]:
    """Which command looks into what this one only counts."""
    if config.dataset.modalities:
        yield Finding(NOTE, f"which ids lack which modality: mmpt data modalities {config.source}")
    if config.dataset.tfeat_dir:
        yield Finding(
            NOTE, f"checksums and contents of shards: mmpt shards verify {config.dataset.vfeat_dir}"
        )


def check_checkpoint(config: Config) -> Iterator[Finding]:
    """Whether the weights saw a list of training items: a zero-shot number needs some that saw none of this
    data set."""
    path = config.trainer.path
    trained = Path(path).parent / "config.yaml" if path else None
    if trained is not None and trained.is_file():
        dataset = load_config(trained).dataset
        yield from (Finding(NOTE, f"{path}: {text}") for text in training_data(vars(dataset)))


def training_data(dataset: Mapping[str, Any]) -> list[str]:
    """What weights were trained on, by the `dataset:` section of that training, and what that makes of their
    numbers.

    Pre-training reads narration in shards (`tfeat_dir`); training for a task reads a list alone.
    """
    if not dataset.get("train_path"):
        return []
    if dataset.get("tfeat_dir"):
        return [f"pre-trained on {dataset['train_path']} with narration {dataset['tfeat_dir']}"]
    return [f"trained on {dataset['train_path']}; zero-shot is a number on another data set alone"]
