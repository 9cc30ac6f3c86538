"""The HowTo-like training data: split lists, video shards, token shards, caption pickle.

how2/how2_s3d_train.lst, how2_s3d_val.lst   one video id per line
how2/caption.pkl                            {id: '{"start": [...], "end": [...], "text": [...]}'}
how2/feat/train_<k>_{data,starts}.npy       float16 (seconds, 512) of 256 videos
how2/feat/train_meta.pkl                    {k: [id, ...]}; both likewise for val
how2/feat/narration.train_<k>.startends_{data,starts}.npy   float32 (captions, 2), seconds
how2/feat/narration.train_<k>.caps_ids_{data,starts}.npy    int32 (captions, 32), padded with -1
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np

from mmpt.synthetic.narration import Sentence
from mmpt.synthetic.parts import DIM
from mmpt.synthetic.timeline import Video
from mmpt.synthetic.vocabulary import WordPiece
from mmpt.synthetic.world import World
from mmpt.utils import ShardWriter, save_plain_pickle
from mmpt.utils.shardedtensor import in_shards

T = TypeVar("T")
Track = Callable[[Iterable[T], str], Iterable[T]]  # wraps a loop to show how far it is

MAX_TOKENS = 32
PASSPORT = {
    "backbone": "synthetic",
    "frames_per_second": None,
    "seconds_per_feature": 1.0,
    "normalised": True,
    "dimensions": DIM,
}
TEXT_PREFIX = "narration."


def write_how2(
    world: World, root: Path, narration: dict[str, list[Sentence]], tokenize: WordPiece, track: Track
) -> None:
    """Write `how2/`.

    Args:
        narration: video id -> sentences, of the train and val splits.
    """
    folder = root / "how2"
    (folder / "feat").mkdir(parents=True)
    for split in ("train", "val"):
        videos = list(world.videos(split))
        write_lines(folder / f"how2_s3d_{split}.lst", [video.id for video in videos])
        shards = in_shards(videos, world.settings.size.videos_per_shard)
        for k, members in track(shards.items(), f"{split} shards"):
            _write_shard(world, folder / "feat", f"{split}_{k}", members, narration, tokenize)
        save_plain_pickle(
            {k: [video.id for video in members] for k, members in shards.items()},
            folder / "feat" / f"{split}_meta.pkl",
        )
    save_plain_pickle(
        {video_id: _as_json(sentences) for video_id, sentences in narration.items()}, folder / "caption.pkl"
    )


def write_npy(folder: Path, name: str, features: np.ndarray) -> None:
    """One feature file `<name>.npy`, (seconds, 512)."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{name}.npy", features, allow_pickle=False)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """A text file of lines."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """A JSON file, its folder created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value) + "\n", encoding="utf-8")


def _write_shard(
    world: World,
    folder: Path,
    name: str,
    videos: list[Video],
    narration: dict[str, list[Sentence]],
    tokenize: WordPiece,
) -> None:
    about_tokens = {"bert_name": "model", "max_tokens": MAX_TOKENS, "padding": -1}
    with (
        ShardWriter(folder / name, np.float16, PASSPORT) as features,
        ShardWriter(folder / f"{TEXT_PREFIX}{name}.startends", np.float32, {"unit": "seconds"}) as times,
        ShardWriter(folder / f"{TEXT_PREFIX}{name}.caps_ids", np.int32, about_tokens) as tokens,
    ):
        for video in videos:
            sentences = narration[video.id]
            features.append(world.features(video))
            times.append(np.array([(sentence.start_s, sentence.end_s) for sentence in sentences]))
            tokens.append(np.stack([_padded(tokenize(sentence.text)) for sentence in sentences]))


def _padded(ids: list[int]) -> np.ndarray:
    row = np.full(MAX_TOKENS, -1, dtype=np.int32)
    row[: len(ids)] = ids[:MAX_TOKENS]
    return row


def _as_json(sentences: list[Sentence]) -> str:
    columns = {
        "start": [s.start_s for s in sentences],
        "end": [s.end_s for s in sentences],
        "text": [s.text for s in sentences],
    }
    return json.dumps(columns)
