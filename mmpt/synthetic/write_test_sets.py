"""Clip and full-video retrieval in the formats of MSR-VTT and YouCook2, with small training sets for
fine-tuning.

msrvtt/MSRVTT_JSFUSION_test.csv      key,vid_key,video_id,sentence
                                     e.g. ret0,msr0,video0,chop the onion with a knife
msrvtt/MSRVTT_train.csv, MSRVTT_full_test.csv
                                     video_id  (the full test list = the gallery and some more clips)
msrvtt/MSRVTT_data.json              {"videos": [...], "sentences": [{"video_id", "caption", "sen_id"}, ...]}
msrvtt/feat/<video_id>.npy           one clip each
youcook/youcook_val.pkl              [{"id": "<video>_<clip>", "caption"}, ...]: every step of the test videos
youcook/youcook_val_distinct.pkl     one clip per distinct step, for clip retrieval without ties
youcook/youcook_train.pkl            clips of the labelled videos
youcook/train_list.txt, val_list.txt <recipe>/<video>, for captioning
youcook/youcookii_annotations_trainval.json
                                     {"database": {video: {"annotations":
                                         [{"segment": [s, e], "id", "sentence"}]}}}
videos/<video>.npy                   whole test and labelled videos, which the further data sets share
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.synthetic.timeline import Video
from mmpt.synthetic.world import Clip, World
from mmpt.synthetic.write import Track, write_json, write_lines, write_npy
from mmpt.utils import save_plain_pickle

CAPTIONS_PER_CLIP = 5  # of a training clip, each by another annotator
EXTRA_TEST_SHARE = (
    10  # one labelled clip in this many goes to the full test list instead of the training list
)
MAX_CLIP_S = 16


def write_videos(world: World, root: Path, track: Track) -> None:
    """Whole videos of the test and labelled splits, one file each."""
    videos = [video for split in ("test", "labelled") for video in world.videos(split)]
    for video in track(videos, "whole videos"):
        write_npy(root / "videos", video.id, world.features(video))


def write_msrvtt(world: World, root: Path, track: Track) -> None:
    """Write `msrvtt/`: the gallery of distinct test clips, and clips of the labelled videos to fine-tune
    on."""
    folder = root / "msrvtt"
    test = world.gallery()
    labelled = world.clips("labelled")
    names = [f"video{i}" for i in range(len(test) + len(labelled))]
    for name, clip in track(list(zip(names, test + labelled, strict=True)), "clips"):
        write_npy(folder / "feat", name, clip_features(world, clip))
    rows = [
        (f"ret{i}", f"msr{i}", name, _sentence(world, clip))
        for i, (name, clip) in enumerate(zip(names, test, strict=False))
    ]
    write_table(folder / "MSRVTT_JSFUSION_test.csv", ("key", "vid_key", "video_id", "sentence"), rows)
    rest = names[len(test) :]
    extra = rest[::EXTRA_TEST_SHARE]
    write_table(
        folder / "MSRVTT_full_test.csv", ("video_id",), [(name,) for name in names[: len(test)] + extra]
    )
    write_table(
        folder / "MSRVTT_train.csv", ("video_id",), [(name,) for name in rest if name not in set(extra)]
    )
    takes = [
        (name, clip, take)
        for name, clip in zip(rest, labelled, strict=True)
        for take in range(CAPTIONS_PER_CLIP)
    ]
    sentences = [
        {"sen_id": i, "video_id": name, "caption": _sentence(world, clip, take)}
        for i, (name, clip, take) in enumerate(takes)
    ]
    videos = [{"id": i, "video_id": name} for i, name in enumerate(names)]
    write_json(folder / "MSRVTT_data.json", {"videos": videos, "sentences": sentences})


def write_youcook(world: World, root: Path) -> None:
    """Write `youcook/`; the features are those in `videos/`."""
    folder = root / "youcook"
    folder.mkdir(parents=True)
    database: dict[str, dict[str, Any]] = {}
    for split, name, subset in (("test", "val", "validation"), ("labelled", "train", "training")):
        videos = list(world.videos(split))
        database |= {video.id: _youcook_entry(world, video, subset) for video in videos}
        lines = [f"{database[video.id]['recipe_type']}/{video.id}" for video in videos]
        write_lines(folder / f"{name}_list.txt", lines)
        save_plain_pickle(_youcook_records(world, world.clips(split)), folder / f"youcook_{name}.pkl")
    write_json(folder / "youcookii_annotations_trainval.json", {"database": database})
    save_plain_pickle(
        _youcook_records(world, world.gallery(latest=True)), folder / "youcook_val_distinct.pkl"
    )


def clip_features(world: World, clip: Clip) -> np.ndarray:
    """Features of one step, at most MAX_CLIP_S seconds."""
    segment = clip.video.segments[clip.index]
    return world.features(clip.video)[segment.start_s : min(segment.end_s, segment.start_s + MAX_CLIP_S)]


def write_table(
    path: Path, header: Sequence[str] | None, rows: Iterable[Sequence[object]], delimiter: str = ","
) -> None:
    """A csv or tsv file, its folder created; header None leaves it out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        if header:
            writer.writerow(header)
        writer.writerows(rows)


def _sentence(world: World, clip: Clip, take: int = 0) -> str:
    return world.captions(clip.video, take)[clip.index]


def _youcook_entry(world: World, video: Video, subset: str) -> dict:
    annotations = [
        {"segment": [segment.start_s, segment.end_s], "id": i, "sentence": sentence}
        for i, (segment, sentence) in enumerate(zip(video.segments, world.captions(video), strict=True))
    ]
    return {
        "duration": float(video.length_s),
        "subset": subset,
        "recipe_type": str(max(video.task, 0)),
        "annotations": annotations,
    }


def _youcook_records(world: World, clips: list[Clip]) -> list[dict[str, str]]:
    return [{"id": f"{clip.video.id}_{clip.index}", "caption": _sentence(world, clip)} for clip in clips]
