"""Videos -> one feature vector per second.

    python scripts/video_feature_extractor/extract.py videos/ data/feat/feat_mine_s3d --weights pretrained_models/s3d_howto100m.pth

reads a folder of videos (or a csv with a column `path`) and writes `<id>.npy`, (seconds, D) float16, and `passport.json`, which says what
they are; with `--shards 4096` it writes shards, manifest and index instead. Run it again after a kill and it goes on. `failures.json`
lists videos that could not be read, with the reason. Several processes or machines share the list by `--rank` and `--world-size`, which
torchrun or a SLURM array sets.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from mmpt.models.backbones import video_backbone
from mmpt.models.extraction_run import VIDEO_SUFFIXES, add_options, run_extraction


def parser() -> argparse.ArgumentParser:
    """Command line."""
    p = argparse.ArgumentParser(description="Videos -> one feature vector per second.")
    p.add_argument("videos", type=Path, help="folder of videos, or csv with a column path and optionally video_id")
    p.add_argument("features", type=Path, help="folder to write")
    p.add_argument("--backbone", default="s3d", help="s3d, r2plus1d, image:<hub id or folder>, or open_clip:<architecture>/<weights>")
    p.add_argument("--weights", type=Path, help="weights file of s3d or r2plus1d")
    p.add_argument("--fps", type=int, help="frames per second; default: what the backbone was trained on")
    p.add_argument("--size", type=int, help="pixels of the square; default: what the backbone was trained on")
    p.add_argument("--reverse", action="store_true", help="the video played backwards (second view of GDT)")
    p.add_argument("--decoder", default="pyav", choices=("pyav", "torchcodec"), help="default: %(default)s")
    p.add_argument("--threads-per-file", type=int, default=1, help="that decode one video; 0: one per core (few long videos)")
    add_options(p, batch_size=16)
    return p


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING)
    try:
        options = args.fps, args.size, args.normalise, args.reverse, args.half, args.device, args.decoder, args.threads_per_file
        backbone = video_backbone(args.backbone, args.weights, *options)
        result = run_extraction(args.videos, args.features, backbone, args, VIDEO_SUFFIXES)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(str(error))
    print(f"{args.features}: {len(result.done)} extracted, {len(result.skipped)} were there, {len(result.failed)} failed")
    for video, reason in result.failed.items():
        print(f"  failed: {video}: {reason}")


if __name__ == "__main__":
    main()
