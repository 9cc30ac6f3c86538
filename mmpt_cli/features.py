"""Videos, or their audio tracks, to one feature vector per second.

    mmpt features video videos/ data/feat/feat_mine_s3d --weights pretrained_models/s3d_howto100m.pth
    mmpt features video videos/ data/feat/feat_mine --backbone image:openai/clip-vit-base-patch32
    mmpt features audio videos/ data/feat/feat_mine_audio --weights pretrained_models/gdt_K400.pth
    mmpt features maps videos/ data/feat/feat_mine_maps --weights pretrained_models/gdt_K400.pth
    mmpt features depth videos/ data/depth --model depth-anything/Depth-Anything-V2-Small-hf

Reads a folder of files (or a csv with a column `path`) and writes `<id>.npy`, (seconds, D) float16, and
`passport.json`, which says what they are; with --shard-size 4096 it writes shards, manifest and index
instead. Run it again after a kill and it goes on. `failures.json` lists files that could not be read, with
the reason. Several processes or machines share the list by --rank and --world-size, which torchrun, SLURM or
MPI set. Of a damaged file the last frame before stays, sound is silent, up to a tenth of it (conceal: seconds
go to `damage.json`); skip lists it as failed, error ends the run.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from mmpt_cli.options import Parser, count, speak

VIDEO = "s3d, r2plus1d, image:<hub id or folder>, or open_clip:<architecture>/<weights>"
AUDIO = "resnet9 (GDT, STiCA: its checkpoint, or the audio network), or audio:<hub id or folder> (AST, CLAP)"


def parser() -> Parser:
    """The options."""
    p = Parser("mmpt features", __doc__)
    verb = p.verbs()
    video = verb("video", "frames")
    _shared(video, "videos", VIDEO, "s3d")
    add = video.add_argument
    add("--fps", type=count, help="frames per second; default: what the backbone was trained on")
    add("--size", type=count, help="pixels of the square; default: what the backbone was trained on")
    add("--reverse", action="store_true", help="the video played backwards (second view of GDT)")
    add("--decoder", default="pyav", choices=("pyav", "torchcodec"), help="(%(default)s)")
    add(
        "--threads-per-file", type=int, default=1, help="that decode one video; 0: one per core (%(default)s)"
    )
    audio = verb("audio", "sound")
    _shared(audio, "videos or audio files", AUDIO, "resnet9")
    add = audio.add_argument
    add("--filters", type=int, default=40, choices=(40, 257), help="mel filters of resnet9 (%(default)s)")
    add("--window", type=count, help="seconds that each feature hears; default: 1 for resnet9, else 10")
    maps = verb("maps", "feature maps of augmented frames, for STiCA on stored features")
    add = maps.add_argument
    _files(maps, "videos")
    add("--weights", type=Path, required=True, help="a GDT or STiCA checkpoint")
    add("--versions", type=count, default=2, help="augmented versions of each video (%(default)s)")
    add("--fps", type=count, default=30, help="frames of a second (%(default)s)")
    add("--size", type=count, default=112, help="pixels of the square, a multiple of 16 (%(default)s)")
    add("--seed", type=int, default=0, help="of the augmentation (%(default)s)")
    _pace(maps)
    depth = verb("depth", "pictures of depth, for models that read them beside the frames")
    add = depth.add_argument
    _files(depth, "videos")
    add("--model", required=True, help="depth estimator of transformers: hub id or folder")
    add("--fps", type=float, default=1.0, help="pictures a second (%(default)s)")
    add("--size", type=count, default=224, help="pixels of the shorter side (%(default)s)")
    _pace(depth)
    return p


def _files(p: Parser, files: str) -> None:
    p.add_argument(
        "files", type=Path, help=f"folder of {files}, or csv with a column path and optionally video_id"
    )
    p.add_argument("features", type=Path, help="folder to write")


def _pace(p: Parser) -> None:
    add, said = p.add_argument, os.environ
    add("--batch-size", type=count, help="seconds per pass, gathered across files; default: what suits it")
    add("--threads", type=count, default=2, help="files read at the same time (%(default)s)")
    add("--dtype", default="float16", choices=("float16", "float32"), help="of the features (%(default)s)")
    p.shared("--device", default=f"cuda:{said['LOCAL_RANK']}" if "LOCAL_RANK" in said else "auto")
    add("--rank", type=int, help="number of this process, from 0; default: torchrun's, SLURM's or MPI's")
    add("--world-size", type=count, help="number of processes (default: the same)")
    p.shared("--quiet")


def _shared(p: Parser, files: str, backbones: str, default: str) -> None:
    add = p.add_argument
    _files(p, files)
    add("--backbone", default=default, help=f"{backbones} (default: %(default)s)")
    add("--weights", type=Path, help="weights file of a network that is named without a colon")
    text = "module or file imported first, with a backbone of one's own; may be given again"
    add("--plugin", action="append", default=[], metavar="FILE", help=text)
    _pace(p)
    add("--half", action="store_true", help="compute in half precision: float16 on a GPU, else bfloat16")
    flag = argparse.BooleanOptionalAction
    add("--normalize", "--normalise", action=flag, default=True, help="scale features to unit length")
    p.shared("--shard-size", help="pack into shards of so many videos instead of one file each")
    p.shared("--split", default="train")
    damage = ("conceal", "skip", "error")
    add(
        "--on-damage", default="conceal", choices=damage, help="damaged or cut files (%(default)s): see above"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Extract; say what was done."""
    args = parser().parse_args(argv)
    speak(args.quiet)
    from mmpt_cli import features_run

    getattr(features_run, args.command if args.command in ("maps", "depth") else "extract")(args)
