"""Sound and feature maps beside the video features, and clips annotated with captions and subtitles.

    how2/audio/train_<k>_{data,starts}.npy, train_meta.pkl
                       float16 (seconds, 128) of the videos that have a sound track; the same for val
    audio/<video>.npy  whole test and labelled videos with a sound track
    how2/maps/train_<k>_{data,starts}.npy, train_meta.pkl
                       float16 (seconds, 4, 4, 32), feature maps of every fourth video; all of val
    maps/<video>.npy   of the whole test videos
    clips/train.json, val.json       clips of the narrated videos (features in how2/feat and how2/audio)
    clips/finetune.json, test.json   clips of the labelled videos, and the gallery (videos/, audio/)
    clips/test_captions.json         the gallery with five captions a clip
    clips/videos_train.json, videos_val.json   whole narrated videos, without captions
    clips/questions_train.json, questions_val.json, questions_test.json   what is acted upon in each clip

An annotation lists its clips; what speech recognition heard in the seconds of a clip is its subtitle, "" when
nothing:

    [{"clip_id": "train00000_0", "video_id": "train00000", "segment": [4, 15], "caption": ["chop the onion
    with a knife"],
      "subtitle": "um now chop the onions"}, ...]
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.synthetic.maps import MAP_DIM
from mmpt.synthetic.narration import Sentence
from mmpt.synthetic.sound import SOUND_DIM
from mmpt.synthetic.world import Clip, World
from mmpt.synthetic.write import PASSPORT, Track, write_json, write_npy
from mmpt.utils import ShardWriter, save_plain_pickle
from mmpt.utils.shardedtensor import in_shards

MAPS_EVERY = 4  # maps take much room
CAPTIONS = 5  # where there are several, each by another annotator


def write_modalities(world: World, root: Path, track: Track) -> None:
    """Write `how2/audio/`, `audio/`, `how2/maps/`, `maps/` and `clips/`."""
    for split in ("train", "val"):
        sounds = (
            (video.id, world.sound(video)) for video in track(list(world.videos(split)), f"{split} sound")
        )
        _write_shards(world, root / "how2" / "audio", split, sounds, SOUND_DIM)
        with_maps = list(world.videos(split))[:: MAPS_EVERY if split == "train" else 1]
        _write_shards(
            world,
            root / "how2" / "maps",
            split,
            ((video.id, world.maps(video)) for video in with_maps),
            MAP_DIM,
        )
        _write_annotation(world, root / "clips" / f"{split}.json", world.clips(split), 1)
        whole = [
            {"video_id": video.id, "caption": "", "subtitle": _spoken_in(world.narration(video))}
            for video in world.videos(split)
        ]
        write_json(root / "clips" / f"videos_{split}.json", whole)
        write_json(root / "clips" / f"questions_{split}.json", _questions(world.clips(split)))
    for split in ("labelled", "test"):
        for video in track(list(world.videos(split)), "sound"):
            sound = world.sound(video)
            if sound is not None:
                write_npy(root / "audio", video.id, sound)
    for video in world.videos("test"):
        write_npy(root / "maps", video.id, world.maps(video))
    _write_annotation(world, root / "clips" / "finetune.json", world.clips("labelled"), CAPTIONS)
    _write_annotation(world, root / "clips" / "test.json", world.gallery(), 1)
    _write_annotation(world, root / "clips" / "test_captions.json", world.gallery(), CAPTIONS)
    write_json(root / "clips" / "questions_test.json", _questions(world.gallery()))


def _write_shards(
    world: World, folder: Path, split: str, streams: Iterable[tuple[str, np.ndarray | None]], width: int
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    there = [(video_id, stream) for video_id, stream in streams if stream is not None]
    shards = in_shards(there, world.settings.size.videos_per_shard)
    for k, members in shards.items():
        with ShardWriter(folder / f"{split}_{k}", np.float16, {**PASSPORT, "dimensions": width}) as writer:
            for _, stream in members:
                writer.append(stream)
    meta = {k: [video_id for video_id, _ in members] for k, members in shards.items()}
    save_plain_pickle(meta, folder / f"{split}_meta.pkl")


def _write_annotation(world: World, path: Path, clips: Iterable[Clip], n_captions: int) -> None:
    heard: dict[str, list[Sentence]] = {}
    captions: dict[tuple[str, int], list[str]] = {}
    rows = []
    for clip in clips:
        video, segment = clip.video, clip.video.segments[clip.index]
        if video.id not in heard:
            heard[video.id] = world.narration(video)
            captions |= {(video.id, take): world.captions(video, take) for take in range(n_captions)}
        rows.append(
            {
                "clip_id": f"{video.id}_{clip.index}",
                "video_id": video.id,
                "segment": [segment.start_s, segment.end_s],
                "caption": [captions[video.id, take][clip.index] for take in range(n_captions)],
                "subtitle": _spoken_in(heard[video.id], segment.start_s, segment.end_s),
            }
        )
    write_json(path, rows)


def _questions(clips: Iterable[Clip]) -> list[dict[str, Any]]:
    """What is acted upon, asked by the verb."""
    rows = []
    for video, index in ((clip.video, clip.index) for clip in clips):
        segment = video.segments[index]
        verb, *rest = segment.step.label().split()
        rows.append(
            {
                "clip_id": f"{video.id}_{index}",
                "video_id": video.id,
                "segment": [segment.start_s, segment.end_s],
                "question": f"{verb} what",
                "answer": " ".join(rest),
            }
        )
    return rows


def _spoken_in(sentences: list[Sentence], start_s: float = 0.0, end_s: float = np.inf) -> str:
    """What is said in [start_s, end_s): sentences whose middle lies there."""
    return " ".join(s.text for s in sentences if start_s <= (s.start_s + s.end_s) / 2 < end_s)
