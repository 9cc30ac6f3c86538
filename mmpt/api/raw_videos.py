"""Tests on video files: the features that the model reads are made first, once for each video."""

from __future__ import annotations

import csv
import dataclasses
import logging
import re
from pathlib import Path

import torch

from mmpt.backbones.backbone import audio_backbone, video_backbone
from mmpt.config import Config, required
from mmpt.extraction.run import AUDIO_SUFFIXES, RunOptions, list_jobs, run_extraction
from mmpt.processors.base import MetaProcessor
from mmpt.registry import META_PROCESSORS, MODELS
from mmpt.utils.files import atomic_write

logger = logging.getLogger(__name__)
SAVE_PATH = "runs/eval"  # where eval.save_path is null


def slug(name: str) -> str:
    """A name as a folder's: `openai/clip-vit-base-patch32` -> `openai_clip-vit-base-patch32`."""
    return re.sub(r"[^\w.-]+", "_", name).strip("_")


def with_features(config: Config, device: torch.device) -> Config:
    """The config with `vfeat_dir` in place of `videos`; features that are missing are extracted.

    They lie in `<eval.save_path>/features/<backbone>`, one file for each video that the test asks for, with
    their passport, and serve every test of that model. A video that cannot be read is named, and then counts
    as one without features.

    Args:
        config: with `dataset.videos`, and `dataset.split: test`.
        device: where the backbone runs.

    Raises:
        FileNotFoundError: no such folder, or the backbone's weights are not here.
    """
    folder = Path(required(config, "dataset.videos"))
    if not folder.is_dir():
        raise FileNotFoundError(f"dataset.videos={folder}: no such folder of video files.")
    name = backbone_of(config)
    out = Path(config.eval.save_path or SAVE_PATH) / "features" / slug(name)
    listed = out / f"{Path(config.source).stem}.csv"
    _write_list(listed, folder, wanted(config))
    make = audio_backbone if name.startswith("audio:") else video_backbone
    backbone = make(name, device=str(device))
    logger.info("features of %s by %s: %s", folder, name, out)
    run = RunOptions(batch_size=backbone.batch_size, n_threads=1)
    result = run_extraction(listed, out, backbone, run, AUDIO_SUFFIXES)
    for video, reason in result.failed.items():
        logger.warning("left out: %s: %s", video, reason)
    dataset = dataclasses.replace(config.dataset, videos=None, vfeat_dir=str(out))
    return dataclasses.replace(config, dataset=dataset)


def backbone_of(config: Config) -> str:
    """Name of the network whose features the model reads: its own, or S3D."""
    features_of = getattr(MODELS.get(config.model.model_cls), "features_of", None)
    return features_of(config) if features_of else "s3d"


def wanted(config: Config) -> list[str]:
    """Ids of the videos that the test asks for and that are there as files."""
    dataset = dataclasses.replace(config.dataset, split="test")
    meta: MetaProcessor = META_PROCESSORS.get(dataset.meta_processor, "dataset.meta_processor")(dataset)
    return list(dict.fromkeys(video for video, _ in meta.segments()))


def _write_list(path: Path, folder: Path, ids: list[str]) -> None:
    """A csv as extraction reads it; an id names its file with or without the suffix."""
    files = [job.path.absolute() for job in list_jobs(folder, AUDIO_SUFFIXES)]
    by_name = {file.stem: file for file in files} | {file.name: file for file in files}
    missing = [video for video in ids if video not in by_name]
    if missing:
        raise FileNotFoundError(f"{folder}: no video file of {missing[0]!r} (a known suffix?).")
    with atomic_write(path, "w") as file:
        rows = csv.writer(file)
        rows.writerow(["video_id", "path"])
        rows.writerows([video, by_name[video]] for video in ids)
