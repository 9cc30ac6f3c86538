"""Build, verify, describe, split and merge shards of features and tokens.

    mmpt shards build data/feat/feat_how2_s3d data/how2/how2_s3d_train.lst data/feat/shards --split train
    mmpt shards verify data/feat/shards
    mmpt shards stats data/feat/shards
    mmpt shards split data/feat/shards data/feat/small --list some.lst --shard-size 256
    mmpt shards merge data/feat/part1 data/feat/part2 data/feat/shards
    mmpt shards modalities data/vtt/annotation_train.json --split train --out data/vtt/shards \\
        --from video=data/vtt/feat_s3d --from audio=data/vtt/feat_audio --rate audio=2

Each shows its progress and, stopped in the middle, goes on when started again (verify: with --resume). Exit
code 1: something is wrong. Files of the splits valid and test are called val_*.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmpt_cli.options import Parser, pair, speak


def parser() -> Parser:
    """The options."""
    p = Parser("mmpt shards", __doc__)
    verb = p.verbs()
    path: dict[str, Any] = {"type": Path}
    build = verb("build", "features of single videos, <id>.npy, to shards")
    build.add_argument("features", **path, help="folder of <id>.npy")
    build.add_argument("list", **path, help="ids, one per line")
    build.add_argument("target", **path, help="folder for the shards")
    build.shared("--split", required=True)
    build.shared("--shard-size", default=4096)
    build.add_argument("--dtype", default="float16", help="of the stored features (default: %(default)s)")
    said = build.add_argument_group("passport, where features come without passport.json").add_argument
    said("--backbone", help="the network the features come from (s3d)")
    said("--frames-per-second", type=float, metavar="N", help="what the network saw (30)")
    said("--seconds-per-feature", type=float, metavar="N", help="time covered by one row (1)")
    said("--normalised", action=argparse.BooleanOptionalAction, help="rows have unit length (yes)")
    verify = verb("verify", "check sizes, counts, checksums and finiteness of every shard of a folder")
    verify.add_argument("folder", **path)
    verify.add_argument(
        "--resume", action="store_true", help="leave out shards that passed and did not change"
    )
    verify.add_argument("--seal", action="store_true", help="enter good shards that the manifest lacks")
    stats = verb("stats", "counts, hours, bytes, lengths and passports of a folder")
    stats.add_argument("folder", **path)
    stats.shared("--json")
    for name, n, text in (
        ("split", 1, "a folder in shards of another size, or a part of its videos"),
        ("merge", "+", "several folders in one"),
    ):
        rewrite = verb(name, text)
        rewrite.add_argument("sources", **path, nargs=n, metavar="folder")
        rewrite.add_argument("target", **path, help="new folder")
        rewrite.shared("--shard-size", default=4096)
        rewrite.add_argument("--list", **path, help="keep these videos, in this order (one id per line)")
    several = verb("modalities", "folders of <id>.npy of several modalities, in the order of an annotation")
    several.add_argument("annotation", help="JSON list of the split's items")
    several.shared("--split", required=True)
    several.shared("--out", **path, required=True, help="folder that gets a folder per modality")
    folder: dict[str, Any] = {"dest": "folders", "type": pair, "required": True, "metavar": "NAME=FOLDER"}
    several.add_argument("--from", action="append", **folder, help="a modality and its folder")
    rate: dict[str, Any] = {"dest": "rates", "type": pair, "default": [], "metavar": "NAME=N"}
    several.add_argument("--rate", action="append", **rate, help="vectors per second, 1 unless given")
    several.add_argument(
        "--versions", type=int, default=1, metavar="N", help="files <id>_aug0.npy ... of each"
    )
    several.shared("--shard-size", default=4096)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Do it; the exit code."""
    args = parser().parse_args(argv)
    speak()
    from mmpt_cli import shards_run

    return getattr(shards_run, args.command if args.command != "merge" else "split")(args)


if __name__ == "__main__":
    from mmpt_cli.main import run

    sys.exit(run(main))
