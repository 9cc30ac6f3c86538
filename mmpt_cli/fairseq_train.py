"""fairseq's training entry with mmpt's task, model and criterion: takes exactly the arguments of
`fairseq-train`.

One process: `python -m mmpt_cli.fairseq_train project.yaml --user-dir mmpt --task mmtask --arch mmarch
--criterion mmloss ...`. Several: `torchrun --nproc_per_node=N -m mmpt_cli.fairseq_train ...
--distributed-world-size N`. The launcher writes these lines; in a checkout `train.py` is the same.
"""

from fairseq_cli.train import cli_main  # first: it sets up fairseq's log format

import mmpt.fairseq_plugin  # noqa: F401  (registers mmtask, mmarch, mmloss and repairs fairseq)
from mmpt.utils.log import short_errors


def main() -> None:
    """Train."""
    short_errors()
    cli_main()


if __name__ == "__main__":
    main()
