"""Videos -> one feature vector per second: the same as `mmpt features video`, whose --help says more."""

import sys

from mmpt_cli.main import door, run

main = door("features", "video")

if __name__ == "__main__":
    sys.exit(run(main))
