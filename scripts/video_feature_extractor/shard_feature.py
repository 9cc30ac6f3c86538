"""Features of single videos -> shards: the same as `mmpt shards build`, whose --help says more."""

import sys

from mmpt_cli.main import door, run

main = door("shards", "build")

if __name__ == "__main__":
    sys.exit(run(main))
