"""`python -m mmpt_cli.modalities check|shards`, a command of earlier versions.

`mmpt data modalities` and `mmpt shards modalities` are the same.
"""

import sys
from collections.abc import Sequence

from mmpt_cli.main import WRONG_INPUT, door, run

WORDS = {"check": "data", "shards": "shards"}


def main(argv: Sequence[str] | None = None) -> int:
    """Hand on to the verb of today."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] not in WORDS:
        print(f"expected one of {', '.join(WORDS)}", file=sys.stderr)
        return WRONG_INPUT
    return door(WORDS[words[0]], "modalities")(words[1:])


if __name__ == "__main__":
    sys.exit(run(main))
