"""Small data sets in the real formats, and stand-ins that need no downloads."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from mmpt.config import DatasetConfig
from mmpt.processors import SpecialIds
from mmpt.utils import ShardWriter, save_plain_pickle

SPECIAL = SpecialIds(cls=1, sep=2, pad=0, mask=3, vocab_size=100)
CONFIG = DatasetConfig(
    max_video_len=16,
    max_len=48,
    sampled_min_len=4,
    sampled_max_len=12,
    sampled_video_min_len=3,
    sampled_video_max_len=16,
    clip_per_video=6,
    sliding_window=8,
    sliding_window_size=16,
)


class WordTokenizer:
    """One id per letter count: "a bb" -> [11, 12]."""

    cls_token_id, sep_token_id, pad_token_id, mask_token_id = 1, 2, 0, 3

    def __len__(self):
        return 100

    def __call__(self, text, add_special_tokens):
        assert not add_special_tokens
        ids = [
            [10 + len(word) for word in one.split()] for one in ([text] if isinstance(text, str) else text)
        ]
        return {"input_ids": ids[0] if isinstance(text, str) else ids}

    def decode(self, ids, skip_special_tokens):
        return " ".join("x" * (token - 10) for token in ids)


def touch_features(folder: Path, ids, seconds=20, width=4) -> Path:
    """`<folder>/<id>.npy` for each id; row s of every video is full of s."""
    folder.mkdir(parents=True, exist_ok=True)
    feature = np.repeat(np.arange(seconds, dtype=np.float16)[:, None], width, axis=1)
    for video in ids:
        np.save(folder / f"{video}.npy", feature)
    return folder


def how2(folder: Path, n_videos=10, shard_size=4, captions=12, seconds=60, **config) -> DatasetConfig:
    """Sharded features and captions of videos v0, v1, ...; row s of video v holds v + s / 1000, its captions
    the id 10 + v."""
    shutil.copytree(_how2_files(n_videos, shard_size, captions, seconds), folder, dirs_exist_ok=True)
    settings = {
        "vfeat_dir": str(folder),
        "tfeat_dir": f"{folder}/text.",
        "train_path": f"{folder}/train.lst",
        "val_path": f"{folder}/val.lst",
    }
    return replace(CONFIG, **{"split": "train", "num_video_per_batch": 3, **settings, **config})


@lru_cache
def _how2_files(n_videos, shard_size, captions, seconds) -> Path:
    """Written once, as shards wait for the disk."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    ids = [f"v{i}" for i in range(n_videos)]
    meta = {
        shard: ids[shard * shard_size : (shard + 1) * shard_size]
        for shard in range(-(-n_videos // shard_size))
    }
    for split in ("train", "val"):
        (folder / f"{split}.lst").write_text("\n".join(ids) + "\n")
        save_plain_pickle(meta, folder / f"{split}_meta.pkl")
        for shard, names in meta.items():
            text = folder / f"text.{split}_{shard}"
            with (
                ShardWriter(folder / f"{split}_{shard}") as video,
                ShardWriter(f"{text}.startends") as times,
                ShardWriter(f"{text}.caps_ids") as caps,
            ):
                for name in names:
                    number = int(name[1:])
                    video.append(
                        np.repeat((number + np.arange(seconds)[:, None] / 1000).astype(np.float32), 4, axis=1)
                    )
                    start = np.arange(captions, dtype=np.float32) * 4
                    times.append(np.stack([start, start + 3.5], axis=1))
                    caps.append(
                        np.where(np.arange(8) < 1 + np.arange(captions)[:, None] % 4, 10 + number, -1).astype(
                            np.int32
                        )
                    )
    return folder


def write_json(path: Path, value) -> str:
    path.write_text(json.dumps(value))
    return str(path)
