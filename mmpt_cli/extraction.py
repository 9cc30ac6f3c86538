"""What the extractors of video and of audio features share: options, the run, what is printed."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from mmpt.backbones.backbone import Backbone
from mmpt.extraction.run import RunOptions, run_extraction


def parser(what: str, files: str, backbones: str, default: str) -> argparse.ArgumentParser:
    """Command line.

    Args:
        what: the description.
        files: help of the input.
        backbones: help of the names of networks.
        default: name of the network.
    """
    p = argparse.ArgumentParser(description=what)
    add, environment = p.add_argument, os.environ
    add("files", type=Path, help=f"folder of {files}, or csv with a column path and optionally video_id")
    add("features", type=Path, help="folder to write")
    add("--backbone", default=default, help=f"{backbones} (default: %(default)s)")
    add("--weights", type=Path, help="weights file of a network that is named without a colon")
    add(
        "--batch-size",
        type=int,
        help="seconds per pass through the network, gathered across files; default: what suits the network",
    )
    add("--threads", type=int, default=2, help="files read at the same time (%(default)s)")
    add(
        "--dtype",
        default="float16",
        choices=("float16", "float32"),
        help="of the stored features (%(default)s)",
    )
    add("--half", action="store_true", help="compute in half precision: float16 on a GPU, bfloat16 on a CPU")
    add(
        "--normalise",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="scale features to unit length",
    )
    gpu = f"cuda:{environment.get('LOCAL_RANK', 0)}"
    add(
        "--device",
        default=gpu if torch.cuda.is_available() else "cpu",
        help="where the network runs (%(default)s)",
    )
    add(
        "--shards",
        type=int,
        metavar="VIDEOS",
        help="pack into shards of so many videos instead of one file each",
    )
    add("--split", default="train", choices=("train", "val"), help="name of the shards (%(default)s)")
    first = int(environment.get("SLURM_ARRAY_TASK_MIN", 0))
    rank = int(environment.get("RANK", int(environment.get("SLURM_ARRAY_TASK_ID", first)) - first))
    world_size = int(environment.get("WORLD_SIZE", environment.get("SLURM_ARRAY_TASK_COUNT", 1)))
    add(
        "--rank",
        type=int,
        default=rank,
        help="number of this process, from 0; default: torchrun's, or the place in a SLURM array",
    )
    add(
        "--world-size",
        type=int,
        default=world_size,
        help="number of processes; default: torchrun's, or the size of the SLURM array",
    )
    return p


def run(args: argparse.Namespace, build: Callable[[], Backbone], suffixes: Iterable[str]) -> None:
    """Extracts, prints what was done; what is wrong with the input ends the program in one sentence.

    Args:
        args: what `parser` read.
        build: makes the network.
        suffixes: which files of a folder to take.
    """
    logging.basicConfig(level=logging.WARNING)
    try:
        backbone = build()
        batch_size = args.batch_size or backbone.batch_size
        options = RunOptions(
            batch_size, args.threads, args.dtype, args.shards, args.split, args.rank, args.world_size
        )
        result = run_extraction(args.files, args.features, backbone, options, suffixes)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(str(error))
    print(
        f"{args.features}: {len(result.done)} extracted, {len(result.skipped)} were there, "
        f"{len(result.failed)} failed"
    )
    for video, reason in result.failed.items():
        print(f"  failed: {video}: {reason}")
