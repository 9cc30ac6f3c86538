"""`python -m mmpt_cli.make_data`, a command of earlier versions: `mmpt data make`."""

import sys

from mmpt_cli.main import door, run

main = door("data", "make")

if __name__ == "__main__":
    sys.exit(run(main))
