"""`python -m mmpt_cli.dedup`, a command of earlier versions: `mmpt captions dedup`."""

import sys

from mmpt_cli.main import door, run

main = door("captions", "dedup")

if __name__ == "__main__":
    sys.exit(run(main))
