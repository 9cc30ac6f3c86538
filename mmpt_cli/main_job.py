"""`python -m mmpt_cli.main_job`, a command of earlier versions: `mmpt demo`."""

import sys

from mmpt_cli.main import door, run

main = door("demo")

if __name__ == "__main__":
    sys.exit(run(main))
