"""fairseq's training entry with mmpt's task, model and criterion: takes exactly the arguments of
`fairseq-train`.

One process: `python -m mmpt_cli.fairseq_train project.yaml --user-dir mmpt --task mmtask --arch mmarch
--criterion mmloss ...`. Several: `torchrun --nproc_per_node=N -m mmpt_cli.fairseq_train ...
--distributed-world-size N`. The launcher writes these lines; in a checkout `train.py` is the same. It
also runs under `python -m torch.distributed.launch`, the line that papers print.
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
    check(sys.argv[1:])
    sys.argv[1:] = launched(sys.argv[1:])
    cli_main()


def check(words: list[str]) -> None:
    """Raises ValueError where no architecture is named, over which fairseq stops without a word."""
    if not {word.split("=")[0] for word in words} & {"--arch", "-a", "--help", "-h"}:
        raise ValueError(
            "this is fairseq's own command, which needs --user-dir mmpt --task mmtask --arch mmarch "
            "--criterion mmloss and its options behind FILE. python locallaunch.py FILE gives all of them."
        )


def launched(words: list[str]) -> list[str]:
    """The arguments as fairseq wants them of a process that torch started.

    `--local-rank=N`, which torch.distributed.launch puts first, goes into the environment, where torchrun
    puts it. Without `--distributed-world-size` fairseq counts GPUs instead of processes.
    """
    if words and (found := re.fullmatch(r"--local[-_]rank=(\d+)", words[0])):
        os.environ.setdefault("LOCAL_RANK", found[1])
        words = words[1:]
    world = os.environ.get("WORLD_SIZE", "1")
    if world == "1" or any(word.split("=")[0] == "--distributed-world-size" for word in words):
        return words
    return [*words, "--distributed-world-size", world]


if __name__ == "__main__":
    main()
