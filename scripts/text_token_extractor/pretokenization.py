"""Timed captions -> token shards: the same as `mmpt captions tokens`, whose --help says more."""

import sys

from mmpt_cli.main import door, run

main = door("captions", "tokens")

if __name__ == "__main__":
    sys.exit(run(main))
