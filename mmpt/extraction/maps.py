"""Feature maps of videos in several augmented versions, for STiCA on stored features.

<id>_aug0.npy, <id>_aug1.npy   (seconds * ceil(FPS / 8), S / 16, S / 16, 512), rows of no particular length
passport.json                  what they are
failures.json                  <id>_aug<k> -> reason

Every version has one draw of crop, flip, colours and blur for a whole video, as STiCA augments clips
(arXiv 2103.10211); every second passes the network by itself.

Letters: n seconds, FPS frames of S x S pixels, T' = ceil(FPS / 8) maps of a second.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mmpt.backbones.r2plus1d import R2Plus1DMaps
from mmpt.extraction.extract import Job, Result, extract
from mmpt.extraction.run import RunOptions, check_passport, list_jobs, share, write_json
from mmpt.media.audio import TAIL_S
from mmpt.media.video import Damage, probe, read_clip
from mmpt.processors.modalities.clips import ClipAugment

CHUNK_S = 4  # seconds read at once
READ_SCALE = 2  # frames are read at most so many times the size of the crop
STRIDE = 8  # frames to a map


class MapNetwork(nn.Module):
    """Augmented clips (n, 3, FPS, S, S) -> maps (n, T', S / 16, S / 16, C)."""

    def __init__(self, network: nn.Module, device: str = "cpu"):
        super().__init__()
        self.network, self.device = network.to(device).eval(), device

    @torch.inference_mode()
    def forward(self, clips: Tensor) -> Tensor:
        return self.network(clips.to(self.device)).permute(0, 2, 3, 4, 1)


def read_version(
    path: Path, damage: Damage, version: int, fps: int, size: int, seed: int
) -> Iterator[np.ndarray]:
    """(n, 3, FPS, S, S) float32 of a video, second by second, under one draw of the augmentation."""
    augment = ClipAugment.stica(size=size)
    draw = zlib.crc32(f"{path.stem} {version} {seed}".encode())
    seconds = max(1, int(np.ceil(probe(path).duration_s - TAIL_S)))
    for start in range(0, seconds, CHUNK_S):
        n = min(CHUNK_S, seconds - start)
        frames = torch.from_numpy(read_clip(path, start, n * fps, fps, READ_SCALE * size))
        clip = augment(frames, torch.Generator().manual_seed(draw))  # (3, n * FPS, S, S)
        yield clip.unflatten(1, (n, fps)).transpose(0, 1).contiguous().numpy()


def extract_maps(
    source: Path,
    out: Path,
    weights: Path,
    run: RunOptions,
    *,
    versions: int = 2,
    fps: int = 30,
    size: int = 112,
    seed: int = 0,
    device: str = "cpu",
) -> Result:
    """Writes the maps of this process's share of the files that have none yet.

    Args:
        source: folder or csv, see `list_jobs`.
        out: folder.
        weights: a GDT or STiCA checkpoint.
        run: batch size in seconds, threads, type of the stored numbers, share of the files.
        versions: how many.
        fps: frames of a second.
        size: S, a multiple of 16.
        seed: of the augmentation.
        device: where the network runs.

    Raises:
        ValueError: `out` holds other features, or the weights belong to another network.
    """
    if size % 16:
        raise ValueError(f"size={size}: the maps are sixteenths of it; use a multiple of 16.")
    named = R2Plus1DMaps("r2plus1d_maps", weights)
    passport = {
        "backbone": named.name,
        **named.origin,
        "frames_per_second": fps,
        "seconds_per_feature": 1 / -(-fps // STRIDE),
        "pixels": size,
        "map": [size // 16, size // 16],
        "versions": versions,
        "augmentation": f"STiCA, seed {seed}",
        "normalised": False,
        "stored_as": run.dtype,
    }
    check_passport(out, passport)
    network = MapNetwork(named.network, device)
    jobs = share(list_jobs(source), run.rank, run.world_size)
    total = Result()
    for version in range(versions):
        wanted = [Job(f"{job.video_id}_aug{version}", job.path) for job in jobs]
        read = partial(read_version, version=version, fps=fps, size=size, seed=seed)
        part = extract(wanted, read, network, out, run.batch_size, run.n_threads, run.dtype)
        total.done += part.done
        total.skipped += part.skipped
        total.failed |= part.failed
    write_json(run.own_file(out, "failures"), total.failed)
    return total
