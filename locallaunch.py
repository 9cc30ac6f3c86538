#!/usr/bin/env python3
"""`python locallaunch.py FILE ...`, the line that papers print: the same as `mmpt train FILE ...`."""

import sys

from mmpt_cli.main import run
from mmpt_cli.train import main as train


def main(argv: list[str] | None = None) -> int:
    """Exit code 0, that of the first job that failed, or 2 for a wrong file or argument."""
    return run(train, argv)


if __name__ == "__main__":
    sys.exit(main())
