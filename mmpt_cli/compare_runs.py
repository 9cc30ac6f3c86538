"""`python -m mmpt_cli.compare_runs`, a command of earlier versions: `mmpt compare`."""

import sys

from mmpt_cli.main import door, run

main = door("compare")

if __name__ == "__main__":
    sys.exit(run(main))
