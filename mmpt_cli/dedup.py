"""Remove what rolling captions repeat, and write the pickle of captions that pre-training reads.

    python -m mmpt_cli.dedup data/how2/raw_caption.json data/how2/raw_caption_dedup.pkl [--plain] [--words]
    [--seed 0]

reads {video id: {"start": [...], "end": [...], "text": [...]}} and writes the pickle {video id: JSON string}
that PKLJSONStrTextProcessor and pretokenization.py read; --plain converts without removing anything
(sentencified captions).
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

from mmpt.processors.captions.dedup import CaptionDedupProcessor
from mmpt.utils.safe_pickle import save_plain_pickle


def main(argv: list[str] | None = None) -> None:
    """Convert a caption JSON; see the module's text."""
    parser = argparse.ArgumentParser(
        description="De-duplicate captions and write the pickle of JSON strings."
    )
    parser.add_argument("captions", type=Path, help="JSON {video id: {start, end, text}}")
    parser.add_argument("output", type=Path, help="pickle to write")
    parser.add_argument("--plain", action="store_true", help="convert only, remove nothing")
    parser.add_argument(
        "--words",
        action="store_true",
        help="longest overlap of whole words instead of the shortest of characters",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the choice which caption keeps an overlap")
    args = parser.parse_args(argv)
    captions: dict[str, Any] = json.loads(args.captions.read_text(encoding="utf-8"))
    clean = (
        (lambda clips: clips) if args.plain else CaptionDedupProcessor(random.Random(args.seed), args.words)
    )
    output = {video: clean(clips) for video, clips in captions.items()}
    save_plain_pickle({video: json.dumps(clips) for video, clips in output.items()}, args.output)
    before, after = (sum(len(clips["text"]) for clips in videos.values()) for videos in (captions, output))
    print(f"{args.output}: {len(output)} videos, {before} captions -> {after}")


if __name__ == "__main__":
    main()
