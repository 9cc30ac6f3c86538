"""`python -m mmpt_cli.stamp begin|finish FILE [--cpu] [--set KEY=VALUE ...]`: the lines of a cluster's job
that mark it as done; see `LocalJob.is_done`."""

from __future__ import annotations

import argparse
import sys

from mmpt.launch.local import LocalJob


def main(argv: list[str] | None = None) -> int:
    """Note what the job will read, or that it has ended well."""
    parser = argparse.ArgumentParser("mmpt_cli.stamp", description=__doc__)
    parser.add_argument("verb", choices=("begin", "finish"))
    parser.add_argument("file")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    args = parser.parse_args(argv)
    job = LocalJob(args.file, cpu=args.cpu, overrides=tuple(args.overrides))
    job.begin() if args.verb == "begin" else job.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
