#!/usr/bin/env python3
"""fairseq's training entry with mmpt's task, model and criterion: takes exactly the arguments of
`fairseq-train`.

One process: `python train.py project.yaml --user-dir mmpt --task mmtask --arch mmarch --criterion mmloss
...`.
Several: `torchrun --nproc_per_node=N train.py ... --distributed-world-size N`. `locallaunch.py` writes these
    lines.
"""

from fairseq_cli.train import cli_main  # first: it sets up fairseq's log format

import mmpt.fairseq_plugin  # noqa: F401  (registers mmtask, mmarch, mmloss and repairs fairseq)
from mmpt.utils.log import short_errors

if __name__ == "__main__":
    short_errors()
    cli_main()
