"""Audio tracks -> a feature vector per second: the same as `mmpt features audio`, whose --help says more."""

import sys

from mmpt_cli.main import door, run

main = door("features", "audio")

if __name__ == "__main__":
    sys.exit(run(main))
