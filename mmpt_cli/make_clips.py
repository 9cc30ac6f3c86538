"""`python -m mmpt_cli.make_clips`, a command of earlier versions: `mmpt data clips`."""

import sys

from mmpt_cli.main import door, run

main = door("data", "clips")

if __name__ == "__main__":
    sys.exit(run(main))
