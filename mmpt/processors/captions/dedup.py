"""Removing what rolling captions repeat: speech recognition shows each line again while the next appears.

`mmpt captions dedup` does it for a file of captions.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path

from mmpt.utils.safe_pickle import save_plain_pickle


class CaptionDedupProcessor:
    """Takes overlaps between neighbouring captions out of one of them.

    Args:
        rng: decides, for each partial overlap, which of the two captions keeps it.
        whole_words: take the longest overlap of whole words. The historic rule (default) takes the shortest
            overlap of characters, so that a single shared letter splits a word.
    """

    def __init__(self, rng: random.Random, whole_words: bool = False):
        self.rng = rng
        self.whole_words = whole_words

    def __call__(self, clips: Mapping[str, list]) -> dict[str, list]:
        """Captions of one video, {"start", "end", "text"}, without repetition; clips without text are left
        out."""
        kept: list[tuple[float, float, str]] = []
        for start, end, text in zip(clips["start"], clips["end"], clips["text"], strict=True):
            if isinstance(text, str) and (text := text.replace("\n", " ").strip()):
                self._add(kept, start, end, text)
        return {
            "start": [clip[0] for clip in kept],
            "end": [clip[1] for clip in kept],
            "text": [clip[2] for clip in kept],
        }

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


def dedup_file(
    captions: Path, out: Path, plain: bool = False, whole_words: bool = False, seed: int = 0
) -> tuple[int, int, int]:
    """Write the pickle of captions that pre-training reads, {video id: JSON string}.

    Args:
        captions: JSON {video id: {"start": [...], "end": [...], "text": [...]}}.
        out: pickle to write.
        plain: convert only, remove nothing (sentencified captions).
        whole_words: see `CaptionDedupProcessor`.
        seed: of the choice which caption keeps an overlap.

    Returns:
        Number of videos, of captions before, and after.
    """
    said = json.loads(captions.read_text(encoding="utf-8"))
    clean = (lambda clips: clips) if plain else CaptionDedupProcessor(random.Random(seed), whole_words)
    kept = {video: clean(clips) for video, clips in said.items()}
    save_plain_pickle({video: json.dumps(clips) for video, clips in kept.items()}, out)
    before, after = (sum(len(clips["text"]) for clips in videos.values()) for videos in (said, kept))
    return len(kept), before, after
