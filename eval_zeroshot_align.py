#!/usr/bin/env python3
"""`python eval_zeroshot_align.py FILE`, the line that Norton prints: `mmpt predict` on HTM-Align."""

import sys

from mmpt_cli.earlier import zeroshot_align
from mmpt_cli.main import run

if __name__ == "__main__":
    sys.exit(run(zeroshot_align))
