"""Looking after feature and token shards.

    python -m mmpt_cli.shards build data/feat/feat_how2_s3d data/how2/how2_s3d_train.lst data/feat/shards
    --split train python -m mmpt_cli.shards verify data/feat/shards
    python -m mmpt_cli.shards stats data/feat/shards
    python -m mmpt_cli.shards split data/feat/shards data/feat/small --list some.lst --shard-size 256
    python -m mmpt_cli.shards merge data/feat/part1 data/feat/part2 data/feat/shards

Each shows its progress and, stopped in the middle, goes on when started again (verify: with --resume). Exit
status 1: something is wrong.
"""

from __future__ import annotations

import argparse
import sys

from mmpt.utils.log import short_errors
from mmpt_cli import shards_build, shards_rewrite, shards_stats, shards_verify


def main(argv: list[str] | None = None) -> int:
    """Command line; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m mmpt_cli.shards",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (add_arguments, run, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        add_arguments(command)
        command.set_defaults(run=run)
    args = parser.parse_args(argv)
    return args.run(args)


COMMANDS = {
    "build": (
        shards_build.add_arguments,
        shards_build.build,
        "features of single videos, <id>.npy, to shards",
    ),
    "verify": (
        shards_verify.add_arguments,
        lambda args: 1 if shards_verify.verify(args.folder, args.resume, args.seal) else 0,
        "check sizes, counts, checksums and finiteness of every shard of a folder",
    ),
    "stats": (
        shards_stats.add_arguments,
        shards_stats.stats,
        "counts, hours, bytes, lengths and passports of a folder",
    ),
    "split": (
        shards_rewrite.add_split_arguments,
        shards_rewrite.rewrite,
        "a folder in shards of another size, or a part of its videos",
    ),
    "merge": (shards_rewrite.add_merge_arguments, shards_rewrite.rewrite, "several folders in one"),
}

if __name__ == "__main__":
    short_errors()
    sys.exit(main())
