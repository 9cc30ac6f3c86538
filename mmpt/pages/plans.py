"""The transport plan of one validation video by the checkpoints of a run: how an alignment comes about."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mmpt.checkpoints.weights import in_order
from mmpt.config import load_config
from mmpt.inference import MMPTModel
from mmpt.inference.align import VideoAlignment, align_video
from mmpt.pages.runs import RunRecord
from mmpt.utils import ShardedTensor, load_plain_pickle

WINDOW_S = 8
LONGEST_S = 600


def plans_of_runs(
    runs: Iterable[RunRecord], most: int = 4
) -> tuple[dict[str, list[tuple[str, VideoAlignment]]], list[str]]:
    """Name of a run -> its `plans_over_time`, and a note on each run that has none; nothing where `most` is
    0."""
    plans, notes = {}, []
    for run in runs if most > 0 else ():
        try:
            plans[run.name] = plans_over_time(run.folder, most)
        except (ValueError, FileNotFoundError, ImportError) as error:
            notes.append(f"No transport plans of {run.name}: {error}")
    return plans, notes


def plans_over_time(folder: Path, most: int = 4) -> list[tuple[str, VideoAlignment]]:
    """Alignments of the first validation video by checkpoints of a run, fewest updates first.

    Args:
        folder: run folder with `config.yaml` and checkpoints.
        most: checkpoints to take, evenly over the run, the last one included.

    Raises:
        ValueError, FileNotFoundError: features, captions or checkpoints are not there, or of another kind.
    """
    source = folder / "config.yaml"
    if not source.is_file():
        raise FileNotFoundError(f"{source}: no project file, so that the model is not known.")
    config = load_config(source)
    checkpoints = in_order(folder.glob("checkpoint*.pt"))
    if not checkpoints:
        raise FileNotFoundError(f"{folder}: no checkpoints.")
    if len(checkpoints) > most:
        checkpoints = [checkpoints[round(i)] for i in np.linspace(0, len(checkpoints) - 1, most)]
    if not (config.dataset.vfeat_dir and config.dataset.tfeat_dir):
        raise ValueError(
            f"{source}: names no shards of features and captions (dataset.vfeat_dir, tfeat_dir)."
        )
    found = []
    for path in checkpoints:
        model, tokenizer, _ = MMPTModel.from_pretrained(str(source), path, video_encoder=None)
        video_id, features, clips = _validation_video(config.dataset, tokenizer)
        window = min(WINDOW_S, model.max_video_len)
        found.append(
            (re.sub("^checkpoint_?", "", path.stem), align_video(model, video_id, features, clips, window))
        )
    return found


def _validation_video(dataset, tokenizer) -> tuple[str, np.ndarray, dict[str, list]]:
    """Id, features and captions of the first validation video that has captions."""
    meta = Path(dataset.vfeat_dir) / "val_meta.pkl"
    if not meta.is_file():
        raise FileNotFoundError(f"{meta}: no list of validation videos.")
    shard, videos = next(iter(load_plain_pickle(meta).items()))
    features = ShardedTensor.load(f"{dataset.vfeat_dir}/val_{shard}")
    times = ShardedTensor.load(f"{dataset.tfeat_dir}val_{shard}.startends")
    tokens = ShardedTensor.load(f"{dataset.tfeat_dir}val_{shard}.caps_ids")
    for index, video_id in enumerate(videos):
        length = min(len(features[index]), LONGEST_S)
        rows = [row for row, (start, end) in enumerate(np.asarray(times[index])) if end <= length]
        if not rows:
            continue
        ids = [[int(token) for token in tokens[index][row] if token >= 0] for row in rows]
        spans = np.asarray(times[index])[rows]
        clips = {"start": list(spans[:, 0]), "end": list(spans[:, 1]), "text": tokenizer.batch_decode(ids)}
        return str(video_id), np.array(features[index][:length], np.float32), clips
    raise ValueError(f"{meta}: none of its videos has captions.")
