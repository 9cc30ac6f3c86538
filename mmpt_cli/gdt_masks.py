"""`python -m mmpt_cli.gdt_masks`, a command of earlier versions: `mmpt gdt`."""

import sys

from mmpt_cli.main import door, run

main = door("gdt")

if __name__ == "__main__":
    sys.exit(run(main))
