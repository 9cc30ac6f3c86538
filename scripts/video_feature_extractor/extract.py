"""Videos -> one feature vector per second, `<id>.npy`.

    python scripts/video_feature_extractor/extract.py videos/ data/feat/feat_mine_s3d --weights pretrained_models/s3d_howto100m.pth

reads a folder of videos (or a csv with a column `path`) and writes (seconds, D) float16 arrays and `passport.json`, which says what they
are. Run it again after a kill and it goes on; `failed_<rank>.tsv` lists videos that could not be read, with the reason. Several
processes or machines share the list by `--rank` and `--world-size` (taken from torchrun or from a SLURM array where present).
`shard_feature.py` packs the result into shards.
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from mmpt.models.backbones import video_backbone
from mmpt.models.extraction import Job, Result, check_passport, extract, list_jobs, share
from mmpt.utils import atomic_write
from mmpt.utils.video import read_seconds


def environment(*names: str, default: int) -> int:
    """The first of these environment variables that is set."""
    return next((int(os.environ[name]) for name in names if name in os.environ), default)


def parser() -> argparse.ArgumentParser:
    """Command line."""
    p = argparse.ArgumentParser(description="Videos -> one feature vector per second.")
    p.add_argument("videos", type=Path, help="folder of videos, or csv with a column path and optionally video_id")
    p.add_argument("features", type=Path, help="folder for <id>.npy")
    p.add_argument("--backbone", default="s3d", help="s3d, r2plus1d, or clip:<hub id or folder>")
    p.add_argument("--weights", type=Path, help="weights file of s3d or r2plus1d")
    p.add_argument("--fps", type=int, help="frames per second; default: what the backbone was trained on")
    p.add_argument("--size", type=int, help="pixels of the square; default: what the backbone was trained on")
    p.add_argument("--batch-size", type=int, default=16, help="seconds per pass through the network, gathered across videos")
    p.add_argument("--threads", type=int, default=2, help="videos decoded at the same time")
    p.add_argument("--dtype", default="float16", choices=("float16", "float32"), help="of the stored features")
    p.add_argument("--normalise", action=argparse.BooleanOptionalAction, default=True, help="scale features to unit length")
    p.add_argument("--reverse", action="store_true", help="play every second backwards (second view of GDT)")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where the network runs")
    rank, world_size = environment("RANK", "SLURM_ARRAY_TASK_ID", default=0), environment("WORLD_SIZE", "SLURM_ARRAY_TASK_COUNT", default=1)
    p.add_argument("--rank", type=int, default=rank, help="number of this process, from 0 (a SLURM array is numbered 0 to N-1)")
    p.add_argument("--world-size", type=int, default=world_size, help="number of processes")
    return p


def run(args: argparse.Namespace) -> Result:
    """Extracts this process's share."""
    backbone = video_backbone(args.backbone, args.weights, args.fps, args.size, args.normalise, args.reverse, args.device)
    jobs = share(list_jobs(args.videos), args.rank, args.world_size)
    check_passport(args.features, backbone.passport)
    read = functools.partial(read_seconds, fps=backbone.fps, size=backbone.size, chunk_s=args.batch_size)
    with tqdm(total=len(jobs), unit="video") as bar:
        seconds = 0

        def on_file(job: Job, clips: int) -> None:
            nonlocal seconds
            seconds += clips
            bar.update()
            bar.set_postfix_str(f"{seconds / max(bar.format_dict['elapsed'], 1e-9):.1f} s of video per s")

        result = extract(jobs, read, backbone.network, args.features, args.batch_size, args.threads, args.dtype, on_file)
    with atomic_write(args.features / f"failed_{args.rank}.tsv", "w") as file:
        file.writelines(f"{video}\t{reason}\n" for video, reason in result.failed.items())
    return result


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING)
    try:
        result = run(args)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(str(error))
    print(f"{args.features}: {len(result.done)} extracted, {len(result.skipped)} were there, {len(result.failed)} failed")
    for video, reason in result.failed.items():
        print(f"  failed: {video}: {reason}")


if __name__ == "__main__":
    main()
