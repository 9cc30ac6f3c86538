"""Removing what rolling captions repeat: speech recognition shows each line again while the next appears.

    python -m mmpt.processors.dedup data/how2/raw_caption.json data/how2/raw_caption_dedup.pkl [--plain] [--words] [--seed 0]

reads {video id: {"start": [...], "end": [...], "text": [...]}} and writes the pickle {video id: JSON string} that
PKLJSONStrTextProcessor and pretokenization.py read; --plain converts without removing anything (sentencified captions).
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmpt.utils.safe_pickle import save_plain_pickle


class CaptionDedupProcessor:
    """Takes overlaps between neighbouring captions out of one of them.

    Args:
        rng: decides, for each partial overlap, which of the two captions keeps it.
        whole_words: take the longest overlap of whole words. The historic rule (default) takes the shortest overlap of characters, so
            that a single shared letter splits a word.
    """

    def __init__(self, rng: random.Random, whole_words: bool = False):
        self.rng = rng
        self.whole_words = whole_words

    def __call__(self, clips: Mapping[str, list]) -> dict[str, list]:
        """Captions of one video, {"start", "end", "text"}, without repetition; clips without text are left out."""
        kept: list[tuple[float, float, str]] = []
        for start, end, text in zip(clips["start"], clips["end"], clips["text"], strict=True):
            if isinstance(text, str) and (text := text.replace("\n", " ").strip()):
                self._add(kept, start, end, text)
        return {"start": [clip[0] for clip in kept], "end": [clip[1] for clip in kept], "text": [clip[2] for clip in kept]}

    def _add(self, kept: list[tuple[float, float, str]], start: float, end: float, text: str) -> None:
        if not kept:
            kept.append((start, end, text))
            return
        last_start, last_end, last = kept[-1]
        if last.endswith(text):
            kept[-1] = (last_start, max(last_end, end), last)
        elif text.startswith(last):
            kept[-1] = (min(last_start, start), max(last_end, end), text)
        elif not (overlap := self._overlap(last, text)):
            kept.append((start, end, text))
        elif self.rng.random() > 0.5:
            last_end = max(last_end, start)
            kept[-1] = (last_start, last_end, last)
            if rest := text[overlap:].strip():
                begin = max(last_end, start)
                kept.append((begin, max(end, begin), rest))
        else:
            kept.pop()
            if rest := last[:-overlap].strip():
                kept.append((last_start, min(last_end, start), rest))
            kept.append((start, end, text))

    def _overlap(self, last: str, text: str) -> int:
        """Number of characters that end `last` and begin `text`; 0 for none."""
        lengths = range(1, min(len(last), len(text)) + 1)
        if not self.whole_words:
            return next((k for k in lengths if last.endswith(text[:k])), 0)
        last, text = f" {last} ", f" {text} "
        return next((k for k in reversed(lengths) if text[k + 1] == " " and last.endswith(text[: k + 2])), 0)


def main(argv: list[str] | None = None) -> None:
    """Convert a caption JSON; see the module's text."""
    parser = argparse.ArgumentParser(description="De-duplicate captions and write the pickle of JSON strings.")
    parser.add_argument("captions", type=Path, help="JSON {video id: {start, end, text}}")
    parser.add_argument("output", type=Path, help="pickle to write")
    parser.add_argument("--plain", action="store_true", help="convert only, remove nothing")
    parser.add_argument("--words", action="store_true", help="longest overlap of whole words instead of the shortest of characters")
    parser.add_argument("--seed", type=int, default=0, help="of the choice which caption keeps an overlap")
    args = parser.parse_args(argv)
    captions: dict[str, Any] = json.loads(args.captions.read_text(encoding="utf-8"))
    clean = (lambda clips: clips) if args.plain else CaptionDedupProcessor(random.Random(args.seed), args.words)
    output = {video: clean(clips) for video, clips in captions.items()}
    save_plain_pickle({video: json.dumps(clips) for video, clips in output.items()}, args.output)
    before, after = (sum(len(clips["text"]) for clips in videos.values()) for videos in (captions, output))
    print(f"{args.output}: {len(output)} videos, {before} captions -> {after}")


if __name__ == "__main__":
    main()
