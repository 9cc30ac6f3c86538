"""Videos -> one feature vector per second: `mmpt features video`, whose --help says more; the options of the
release (--vdir, --fdir, --type=s3d ...) are taken, too."""

import sys

from mmpt_cli.earlier import extract as main
from mmpt_cli.main import run

if __name__ == "__main__":
    sys.exit(run(main))
