"""Removing what rolling captions repeat: speech recognition shows each line again while the next appears.

`mmpt captions dedup` does it for a file of captions.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from mmpt.processors.captions.readers import check_captions, out_of_order, read_captions
from mmpt.utils.safe_pickle import save_plain_pickle


class CaptionDedupProcessor:
    """Takes overlaps between neighbouring captions out of one of them.

    A caption repeats the one before where it is shown while that one still is, and begins with the words that
    end it. Sentences that follow each other are left as they are, whatever words they share.

    Args:
        rng: decides, for each partial overlap, which of the two captions keeps it.
        compat: the released rule: the shortest overlap of characters, whenever they are shown, so that a
            single shared letter splits a word.
    """

    def __init__(self, rng: random.Random, compat: bool = False):
        self.rng = rng
        self.compat = compat

    def __call__(self, clips: Mapping[str, list]) -> dict[str, list]:
        """Captions of one video, {"start", "end", "text"}, without repetition; clips without text are left
        out."""
        kept: list[tuple[float, float, str]] = []
        for start, end, text in zip(clips["start"], clips["end"], clips["text"], strict=True):
            if isinstance(text, str) and (text := self._plain(text)):
                self._add(kept, start, end, text)
        return {
            "start": [clip[0] for clip in kept],
            "end": [clip[1] for clip in kept],
            "text": [clip[2] for clip in kept],
        }

    def _plain(self, text: str) -> str:
        return text.replace("\n", " ").strip() if self.compat else " ".join(text.split())

    def _add(self, kept: list[tuple[float, float, str]], start: float, end: float, text: str) -> None:
        if not kept:
            kept.append((start, end, text))
            return
        last_start, last_end, last = kept[-1]
        if not (overlap := self._overlap(last, text, is_shown=start < last_end)):
            kept.append((start, end, text))
        elif overlap == len(text):
            kept[-1] = (last_start, max(last_end, end), last)
        elif overlap == len(last):
            kept[-1] = (min(last_start, start), max(last_end, end), text)
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

    def _overlap(self, last: str, text: str, is_shown: bool) -> int:
        """Number of characters that end `last`, which is still shown or not, and begin `text`; 0 for none."""
        if self.compat:
            if last.endswith(text) or text.startswith(last):
                return len(text) if last.endswith(text) else len(last)
            lengths = range(1, min(len(last), len(text)) + 1)
            return next((k for k in lengths if last.endswith(text[:k])), 0)
        ends, begins = last.split(), text.split()
        counts = range(min(len(ends), len(begins)) if is_shown else 0, 0, -1)
        words = next((k for k in counts if ends[-k:] == begins[:k]), 0)
        return len(" ".join(begins[:words]))


class Deduplicated(NamedTuple):
    """What `dedup_file` did.

    Attributes:
        videos: how many there are.
        before, after: captions.
        unsorted: videos whose captions were put in order of their start.
        dropped: video -> captions with impossible times, which were left out.
    """

    videos: int
    before: int
    after: int
    unsorted: list[str]
    dropped: dict[str, list[str]]


def dedup_file(
    captions: Path, out: Path, plain: bool = False, compat: bool = False, seed: int = 0, on_bad: str = "error"
) -> Deduplicated:
    """Write the pickle of captions that pre-training reads, {video id: JSON string}.

    Args:
        captions: file or folder, of any form that `readers.py` lists.
        out: pickle to write.
        plain: convert only, remove nothing (sentencified captions).
        compat: see `CaptionDedupProcessor`.
        seed: of the choice which caption keeps an overlap.
        on_bad: of captions with impossible times, see `check_captions`.

    Raises:
        ValueError: no captions in the file, or impossible times.
    """
    found = read_captions(captions)
    unsorted = out_of_order(found)
    said, dropped = check_captions(found, on_bad=on_bad)
    clean = (lambda clips: clips) if plain else CaptionDedupProcessor(random.Random(seed), compat)
    kept = {video: clean(clips) for video, clips in said.items()}
    save_plain_pickle({video: json.dumps(clips) for video, clips in kept.items()}, out)
    before, after = (sum(len(clips["text"]) for clips in videos.values()) for videos in (said, kept))
    return Deduplicated(len(kept), before, after, unsorted, dropped)
