"""The transport plan of one validation video by the checkpoints of a run: how an alignment comes about."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from mmpt.checkpoints.weights import in_order
from mmpt.config import Config, load_config
from mmpt.evaluators.plots import plot_alignment
from mmpt.inference import MMPTModel
from mmpt.inference.align import VideoAlignment, align_video
from mmpt.pages.runs import RunRecord
from mmpt.utils import ShardedTensor, load_plain_pickle, optional_import

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
    found = []
    for path in checkpoints:
        model = MMPTModel.from_pretrained(str(source), path, video_encoder=None)[0]
        found.append((re.sub("^checkpoint_?", "", path.stem), _aligned(model, config)))
    return found


def plan_now(network: nn.Module, config: Config, tokenizer: Any, aligner: Any) -> VideoAlignment:
    """The alignment of the first validation video by a model in training, which stays in its mode.

    Args:
        network: the bare model.
        config: what it is trained by.
        tokenizer, aligner: of the captions; the aligner packs them.

    Raises:
        ValueError, FileNotFoundError: features and captions are not there, or the model does not read video
            and text one by one.
    """
    if not (hasattr(network, "forward_video") and hasattr(network, "forward_text")):
        raise ValueError(f"{config.source}: {type(network).__name__} does not encode video and text alone.")
    was_training = network.training
    model = MMPTModel(network, tokenizer, aligner).eval()
    try:
        return _aligned(model, config)
    finally:
        network.train(was_training)


def picture(found: VideoAlignment) -> np.ndarray:
    """The plan of one video as a picture, (H, W, 3) uint8."""
    with tempfile.TemporaryDirectory() as folder:
        path = plot_alignment(
            Path(folder) / "plan.tif",
            found.plan,
            found.windows.tolist(),
            found.captions,
            said=found.said,
            title=found.video_id,
        )
        return optional_import("matplotlib.image", "reports").imread(path)[..., :3]


def _aligned(model: MMPTModel, config: Config) -> VideoAlignment:
    video_id, features, clips = _validation_video(config, model.tokenizer)
    return align_video(model, video_id, features, clips, min(WINDOW_S, model.max_video_len))


def _validation_video(config: Config, tokenizer: Any) -> tuple[str, np.ndarray, dict[str, list]]:
    """Id, features and captions of the first validation video that has captions."""
    dataset = config.dataset
    if not (dataset.vfeat_dir and dataset.tfeat_dir):
        raise ValueError(
            f"{config.source}: names no shards of features and captions (dataset.vfeat_dir, tfeat_dir)."
        )
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
