"""`python -m mmpt.processors.dedupprocessor`, a command that papers print.

The same as `mmpt captions dedup data/how2/raw_caption.json data/how2/raw_caption_dedup.pkl --compat`.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from mmpt.processors.captions.dedup import CaptionDedupProcessor, dedup_file

__all__ = ["CaptionDedupProcessor"]
logger = logging.getLogger(__name__)


def main() -> None:
    """De-duplicate the captions of a folder by the released rule."""
    parser = argparse.ArgumentParser(prog="python -m mmpt.processors.dedupprocessor", description=__doc__)
    parser.add_argument("--how2dir", type=Path, default=Path("data/how2"), help="folder of raw_caption.json")
    folder = parser.parse_args().how2dir
    source, target = folder / "raw_caption.json", folder / "raw_caption_dedup.pkl"
    if not source.is_file():
        parser.error(f"{source}: no such file; `mmpt captions dedup CAPTIONS OUT` takes any other.")
    done = dedup_file(source, target, compat=True)
    logger.info("%s: %d videos, %d captions -> %d", target, done.videos, done.before, done.after)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
