"""What `mmpt features` calls."""

from __future__ import annotations

import argparse

from mmpt.backbones.backbone import audio_backbone, video_backbone
from mmpt.backbones.folding import keep_freed_memory
from mmpt.extraction.depth import extract_depth
from mmpt.extraction.extract import Result
from mmpt.extraction.maps import extract_maps
from mmpt.extraction.run import AUDIO_SUFFIXES, RunOptions, run_extraction
from mmpt.media.video import VIDEO_SUFFIXES
from mmpt.registry import load_plugins
from mmpt.utils.device import choose_device
from mmpt.utils.ranks import place
from mmpt_cli.shards_run import SHARD_NAMES


def extract(args: argparse.Namespace) -> None:
    """Extract; print how many, and what failed."""
    load_plugins(args.plugin)
    keep_freed_memory()
    rank, processes = _place(args)
    backbone, suffixes = BACKBONES[args.command](args)
    options = RunOptions(
        args.batch_size or backbone.batch_size,
        args.threads,
        args.dtype,
        args.shard_size,
        SHARD_NAMES[args.split],
        rank,
        processes,
        args.on_damage,
    )
    _say(args, run_extraction(args.files, args.features, backbone, options, suffixes))


def maps(args: argparse.Namespace) -> None:
    """Extract feature maps; print how many, and what failed."""
    keep_freed_memory()
    rank, processes = _place(args)
    options = RunOptions(args.batch_size or 4, args.threads, args.dtype, rank=rank, world_size=processes)
    settings = {"versions": args.versions, "fps": args.fps, "size": args.size, "seed": args.seed}
    device = str(choose_device(args.device))
    _say(args, extract_maps(args.files, args.features, args.weights, options, device=device, **settings))


def depth(args: argparse.Namespace) -> None:
    """Estimate depth; print of how many, and what failed."""
    rank, processes = _place(args)
    options = RunOptions(args.batch_size or 8, 1, rank=rank, world_size=processes)
    settings = {"fps": args.fps, "size": args.size, "device": str(choose_device(args.device))}
    _say(args, extract_depth(args.files, args.features, args.model, options, **settings))


def _place(args: argparse.Namespace) -> tuple[int, int]:
    """Number of this process, and how many there are."""
    where = place()
    rank = where.rank if args.rank is None else args.rank
    processes = where.world_size if args.world_size is None else args.world_size
    if processes > 1:
        print(f"process {rank} of {processes}" + (f", by {where.source}" if args.rank is None else ""))
    return rank, processes


def _say(args: argparse.Namespace, result: Result) -> None:
    print(
        f"{args.features}: {len(result.done)} extracted, {len(result.skipped)} were there, "
        f"{len(result.failed)} failed"
    )
    for video, damage in result.damaged.items():
        print(f"  damaged: {video}: {damage}")
    for video, reason in result.failed.items():
        print(f"  failed: {video}: {reason}")


def _video(args: argparse.Namespace):
    device, half, normalize = str(choose_device(args.device)), args.half, args.normalize
    options = args.fps, args.size, normalize, args.reverse, half, device, args.decoder, args.threads_per_file
    return video_backbone(args.backbone, args.weights, *options), VIDEO_SUFFIXES


def _audio(args: argparse.Namespace):
    options = args.filters, args.window, args.normalize, args.half, str(choose_device(args.device))
    return audio_backbone(args.backbone, args.weights, *options), AUDIO_SUFFIXES


BACKBONES = {"video": _video, "audio": _audio}
