"""Audio tracks -> one feature vector per second.

    python scripts/audio_feature_extractor/extract.py videos/ data/feat/feat_mine_audio --weights pretrained_models/gdt_K400.pth

reads a folder of videos or audio files (or a csv with a column `path`) and writes `<id>.npy`, (seconds, D) float16, and `passport.json`;
shards, resuming, `failures.json` and several processes as in the extractor for video.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from mmpt.models.backbones import audio_backbone
from mmpt.models.extraction_run import AUDIO_SUFFIXES, add_options, run_extraction


def parser() -> argparse.ArgumentParser:
    """Command line."""
    p = argparse.ArgumentParser(description="Audio tracks -> one feature vector per second.")
    p.add_argument("files", type=Path, help="folder of videos or audio files, or csv with a column path and optionally video_id")
    p.add_argument("features", type=Path, help="folder to write")
    p.add_argument("--backbone", default="resnet9", help="resnet9 (GDT, STiCA), or audio:<hub id or folder> (AST, CLAP)")
    p.add_argument("--weights", type=Path, help="GDT or STiCA checkpoint, or the audio network alone, for resnet9")
    p.add_argument("--filters", type=int, default=40, choices=(40, 257), help="mel filters that resnet9 was trained on")
    p.add_argument("--window", type=int, help="seconds that each feature hears; default: 1 for resnet9, 10 for AST and CLAP")
    add_options(p, batch_size=64)
    return p


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING)
    try:
        backbone = audio_backbone(args.backbone, args.weights, args.filters, args.window, args.normalise, args.half, args.device)
        result = run_extraction(args.files, args.features, backbone, args, AUDIO_SUFFIXES)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(str(error))
    print(f"{args.features}: {len(result.done)} extracted, {len(result.skipped)} were there, {len(result.failed)} failed")
    for video, reason in result.failed.items():
        print(f"  failed: {video}: {reason}")


if __name__ == "__main__":
    main()
