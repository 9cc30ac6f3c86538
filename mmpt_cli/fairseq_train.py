"""fairseq's training entry with mmpt's task, model and criterion: takes exactly the arguments of
`fairseq-train`.

One process: `python -m mmpt_cli.fairseq_train project.yaml --user-dir mmpt --task mmtask --arch mmarch
--criterion mmloss ...`. Several: `torchrun --nproc_per_node=N -m mmpt_cli.fairseq_train ...
--distributed-world-size N`. The launcher writes these lines; in a checkout `train.py` is the same. Under
`python -m torch.distributed.launch`, which papers print, it takes the option that this adds.
"""

import os
import re
import sys

from fairseq_cli.train import cli_main  # first: it sets up fairseq's log format

import mmpt.fairseq_plugin  # noqa: F401  (registers mmtask, mmarch, mmloss and repairs fairseq)
from mmpt.utils.log import short_errors


def main() -> None:
    """Train."""
    short_errors()
    sys.argv[1:] = without_local_rank(sys.argv[1:])
    cli_main()


def without_local_rank(words: list[str]) -> list[str]:
    """Leave out `--local-rank=N`, which torch.distributed.launch puts before the arguments of the program;
    the plugin reads the environment, as under torchrun."""
    if words and (found := re.fullmatch(r"--local[-_]rank=(\d+)", words[0])):
        os.environ.setdefault("LOCAL_RANK", found[1])
        return words[1:]
    return words


if __name__ == "__main__":
    main()
