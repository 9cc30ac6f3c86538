"""`python -m mmpt_cli.torchrunjob`, a command of earlier versions: see mmpt/launch/torchrun.py."""

import sys

from mmpt.launch.torchrun import main

if __name__ == "__main__":
    sys.exit(main())
