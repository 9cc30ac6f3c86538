"""Timed captions -> token shards beside feature shards.

Reads captions of any form that `readers.py` lists and, for each `train_meta.pkl` and `val_meta.pkl` of the
feature shards in the target folder, writes `<captions>.<tokenizer>.train_<k>.startends_*.npy` and
`.caps_ids_*.npy`, videos in the same order. Ids without captions get none. Stopped in the middle, the same
call goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from mmpt.processors.captions.readers import begins_behind, check_captions, out_of_order, read_captions
from mmpt.processors.store.passport import seconds_per_row
from mmpt.processors.tokens import load_tokenizer
from mmpt.utils.shardedtensor import ShardedTensor, ShardWriter, load_index, read_manifest

PADDING = -1


class Tokenized(NamedTuple):
    """What `tokenize_captions` did.

    Attributes:
        written: name of the shards of each split -> how many there are, and the videos without captions.
        unsorted: videos whose captions were put in order of their start.
        dropped: video -> captions with impossible times, which were left out.
        behind: video -> captions that begin behind its features; they are kept, and training draws none.
    """

    written: dict[str, tuple[int, list[str]]]
    unsorted: list[str]
    dropped: dict[str, list[str]]
    behind: dict[str, int]


def tokenize(clips: Any, tokenizer: Any, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Times (n, 2) float32 and ids (n, columns) int32, padded with -1, of the captions of one video (None: no
    captions)."""
    if not clips or not clips["text"]:
        return np.zeros((0, 2), np.float32), np.zeros((0, columns), np.int32)
    texts = [text if isinstance(text, str) else "" for text in clips["text"]]
    ids = np.full((len(texts), columns), PADDING, np.int32)
    for row, tokens in zip(ids, tokenizer(texts, add_special_tokens=False)["input_ids"], strict=True):
        row[: len(tokens)] = tokens[:columns]
    return np.stack([clips["start"], clips["end"]], axis=1).astype(np.float32), ids


def write_shard(
    prefix: Path,
    videos: Sequence[str],
    captions: Mapping[str, Any],
    tokenizer: Any,
    columns: int,
    passport: dict,
) -> None:
    """The two token shards of one feature shard."""
    with (
        ShardWriter(f"{prefix}.startends", passport=passport) as times_writer,
        ShardWriter(f"{prefix}.caps_ids", passport=passport) as ids_writer,
    ):
        for video in videos:
            times, ids = tokenize(captions.get(video), tokenizer, columns)
            times_writer.append(times)
            ids_writer.append(ids)


def is_done(prefix: Path, videos: Sequence[str], passport: dict) -> bool:
    """Whether both shards of an earlier run are there, of these captions and this tokenizer."""
    entries = [
        read_manifest(prefix.parent).get(f"{prefix.name}.{kind}") for kind in ("startends", "caps_ids")
    ]
    return all(
        entry is not None and entry["items"] == len(videos) and entry["passport"] == passport
        for entry in entries
    )


def tokenize_captions(
    captions_path: Path,
    bert_name: str,
    target: Path,
    columns: int = 32,
    use_fast: bool | None = None,
    on_bad: str = "error",
) -> Tokenized:
    """Write the token shards that are not there yet.

    Args:
        captions_path: pickle or JSON of timed captions.
        bert_name: tokenizer, a hub name or a folder.
        target: folder of the feature shards, where the token shards go too.
        columns: most tokens kept of a caption.
        use_fast: which implementation of the tokenizer.
        on_bad: of captions with impossible times, see `check_captions`: "error", or "drop". Captions out of
            order are put in order.

    Raises:
        FileNotFoundError: there are no feature shards.
        ValueError: no captions in the file, or impossible times.
    """
    metas = {split: path for split in ("train", "val") if (path := target / f"{split}_meta.pkl").exists()}
    if not metas:
        raise FileNotFoundError(
            f"{target}: no train_meta.pkl or val_meta.pkl. Shard the features first: mmpt shards build."
        )
    tokenizer = load_tokenizer(bert_name, use_fast)
    indexes = {split: load_index(path) for split, path in metas.items()}
    seconds = _seconds(target, indexes)
    said = read_captions(captions_path)
    unsorted = out_of_order(said)
    captions, dropped = check_captions(said, seconds, on_bad, behind="keep")
    behind = begins_behind(captions, seconds)
    passport = {
        "tokenizer": Path(bert_name).name,
        "vocabulary": len(tokenizer),
        "captions": captions_path.name,
        "columns": columns,
    }
    base, written = target / f"{captions_path.stem}.{Path(bert_name).name}", {}
    for split, meta in indexes.items():
        for shard, videos in tqdm(meta.items(), desc=split, unit="shard", disable=None):
            prefix = Path(f"{base}.{split}_{shard}")
            if not is_done(prefix, videos, passport):
                write_shard(prefix, videos, captions, tokenizer, columns, passport)
        without = [video for videos in meta.values() for video in videos if video not in captions]
        written[f"{base}.{split}_*"] = len(meta), without
    return Tokenized(written, unsorted, dropped, behind)


def _seconds(folder: Path, indexes: Mapping[str, Mapping[int, Sequence[str]]]) -> dict[str, float]:
    """Video -> seconds of its features; without those whose shards are not here."""
    found: dict[str, float] = {}
    for split, meta in indexes.items():
        for shard, videos in meta.items():
            path = folder / f"{split}_{shard}"
            if Path(f"{path}_data.npy").is_file():
                rows = ShardedTensor.load(path, mmap_mode="r").lengths()
                per_row = seconds_per_row(path)
                found |= {video: per_row * n for video, n in zip(videos, rows.tolist(), strict=False)}
    return found
