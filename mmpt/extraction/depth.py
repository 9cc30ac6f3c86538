"""Depth of videos, for models that read it as a modality beside the frames.

<id>_depth.npy   (n, H, W) uint8, fps pictures a second: 0 the farthest of the video, 255 the nearest
passport.json    what they are
failures.json    id -> reason

    dataset:
      modalities:
        depth: {path: data/depth, raw: frames, max_len: 8}

Letters: n pictures of H x W pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from mmpt.backbones.external import load_whole
from mmpt.extraction.extract import Job, Result
from mmpt.extraction.run import RunOptions, check_passport, list_jobs, share, write_json
from mmpt.media.audio import TAIL_S
from mmpt.media.video import MediaError, VideoError, probe, read_clip
from mmpt.utils import atomic_write
from mmpt.utils.optional import optional_import, pretrained

CHUNK = 32  # pictures read at once


class DepthEstimator:
    """A depth estimator of transformers (DPT, Depth Anything ...).

    Args:
        model: hub id or folder.
        device: where it runs.
    """

    def __init__(self, model: str, device: str = "cpu"):
        transformers = optional_import("transformers")
        self.processor = pretrained(transformers.AutoImageProcessor, model, needed="preprocessor_config.json")
        self.network = load_whole(transformers.AutoModelForDepthEstimation, model).to(device).eval()
        self.device = device

    @torch.inference_mode()
    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Pictures (n, H, W, 3) uint8 -> relative depth (n, H, W) float32, larger is nearer."""
        inputs = self.processor(images=list(frames), return_tensors="pt").to(self.device)
        depth = self.network(**inputs).predicted_depth[:, None].float()
        size = frames.shape[1:3]
        return torch.nn.functional.interpolate(depth, size, mode="bilinear")[:, 0].cpu().numpy()


def extract_depth(
    source: Path,
    out: Path,
    model: str,
    run: RunOptions,
    *,
    fps: float = 1.0,
    size: int = 224,
    device: str = "cpu",
) -> Result:
    """Writes the depth of this process's share of the files that have none yet.

    Args:
        source: folder or csv, see `list_jobs`.
        out: folder.
        model: hub id or folder of a depth estimator.
        run: batch size in pictures, share of the files.
        fps: pictures a second.
        size: pixels of the shorter side of what is stored; smaller videos keep their size.
        device: where the estimator runs.

    Raises:
        ValueError: `out` holds something else.
    """
    passport = {"depth": model, "frames_per_second": fps, "pixels": size, "stored_as": "uint8"}
    check_passport(out, passport)
    estimator, result = DepthEstimator(model, device), Result()
    for job in tqdm(share(list_jobs(source), run.rank, run.world_size), unit="file", disable=None):
        target = out / f"{job.video_id}_depth.npy"
        if target.exists():
            result.skipped.append(job.video_id)
            continue
        try:
            depth = _of_video(job, estimator, run.batch_size, fps, size)
        except MediaError as error:
            result.failed[job.video_id] = str(error)
            continue
        with atomic_write(target) as file:
            np.save(file, depth)
        result.done.append(job.video_id)
    write_json(run.own_file(out, "failures"), result.failed)
    return result


def _of_video(job: Job, estimator: Any, batch_size: int, fps: float, size: int) -> np.ndarray:
    """(n, H, W) uint8, scaled over the whole video, so that near and far are told from picture to picture."""
    count = max(1, int(np.ceil((probe(job.path).duration_s - TAIL_S) * fps)))
    parts = []
    for start in range(0, count, CHUNK):
        frames = read_clip(job.path, start / fps, min(CHUNK, count - start), fps, size)
        parts += [estimator(frames[k : k + batch_size]) for k in range(0, len(frames), batch_size)]
    if len({part.shape[1:] for part in parts}) > 1:
        raise VideoError(f"{job.path}: the size of its frames changes.")
    depth = np.concatenate(parts)
    low, high = depth.min(), depth.max()
    if not np.isfinite([low, high]).all():
        raise VideoError(f"{job.path}: its depth is not finite.")
    return np.round((depth - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)
