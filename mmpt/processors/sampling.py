"""Drawing training clips: which captions, which seconds.

Text: start from one caption and add neighbours, left or right by a coin, until the clip holds its budget of
    words or 256 seconds.
Video: start from one second and grow left or right by a coin, until the clip has its budget of seconds; at an
    end of the video grow the other way.

The law is stated once, one draw at a time, by TextClipSamplingProcessor and VideoClipSamplingProcessor, which
replay the historic stream of Python's `random`. `text_ranges` and `video_ranges` draw the same law for all
clips of a batch at once.

Letters: B clips, n captions.
"""

from __future__ import annotations

import random

import numpy as np

from mmpt.processors.captions.captions import Captions

MAX_CLIP_SECONDS = 256


class TextClipSamplingProcessor:
    """One text clip, draw by draw.

    Args:
        max_len: budget of words where a call gives none.
        keep_prob: probability of keeping the neighbour that would be added next; else it is skipped for the
            one behind it.
    """

    def __init__(self, max_len: int, keep_prob: float = 1.0):
        self.max_len = max_len
        self.keep_prob = keep_prob

    def __call__(
        self, captions: Captions, rng: random.Random, centre: int | None = None, max_len: int | None = None
    ) -> list[int]:
        """Indices of the chosen captions, rising. The last one added may exceed the budget."""
        n, budget = len(captions), self.max_len if max_len is None else max_len
        first = rng.randint(0, n - 1) if centre is None else centre
        behind = first + 1
        chosen = [first]
        words = captions.counts[first]
        while (
            (first > 0 or behind < n)
            and words < budget
            and captions.end_s[chosen[-1]] - captions.start_s[chosen[0]] < MAX_CLIP_SECONDS
        ):
            right = rng.random() > 0.5
            right = behind < n if right else first == 0
            skip = rng.random() > self.keep_prob
            if right:
                behind += 2 if skip and behind + 1 < n else 1
                chosen.append(behind - 1)
                words += captions.counts[behind - 1]
            else:
                first -= 2 if skip and first - 1 > 0 else 1
                chosen.insert(0, first)
                words += captions.counts[first]
        return chosen


class VideoClipSamplingProcessor:
    """One stretch of seconds, draw by draw."""

    def __call__(
        self, video_len: int, max_video_len: int, centre: int, rng: random.Random
    ) -> tuple[int, int]:
        """[start, end) of min(max_video_len, video_len) seconds."""
        start = end = centre
        while end - start < min(max_video_len, video_len):
            if start == 0:
                end += 1
            elif end == video_len:
                start -= 1
            elif rng.random() > 0.5:
                end += 1
            else:
                start -= 1
        return start, end


def text_ranges(
    captions: Captions,
    lowest: np.ndarray,
    highest: np.ndarray,
    centre: np.ndarray,
    budget: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """B text clips at once, none skipped (keep_prob 1).

    Args:
        captions: of all videos, end to end.
        lowest, highest: (B,) first caption of the clip's video and the one behind its last.
        centre: (B,) captions to start from.
        budget: (B,) words.

    Returns:
        (first, behind), each (B,): captions [first, behind).
    """
    first, behind = centre.copy(), centre + 1
    while True:
        words = captions.offsets[behind] - captions.offsets[first]
        seconds = captions.end_s[behind - 1] - captions.start_s[first]
        room_left, room_right = first > lowest, behind < highest
        grows = (room_left | room_right) & (words < budget) & (seconds < MAX_CLIP_SECONDS)
        if not grows.any():
            return first, behind
        right = np.where(rng.random(len(centre)) > 0.5, room_right, ~room_left)
        behind += grows & right
        first -= grows & ~right


def video_ranges(
    length: np.ndarray, budget: np.ndarray, centre: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """B stretches of seconds at once.

    Of the walk's `steps` moves, the number that go left is binomial, clamped to what fits on either side:
    once the walk stands at an end of the video every later move goes the other way, whatever its coin says,
    so a coin that is tossed and ignored changes nothing.

    Args:
        length: (B,) seconds of the clip's video.
        budget: (B,) seconds wanted.
        centre: (B,) seconds to start from, in [0, length).

    Returns:
        (start, end), each (B,).
    """
    steps = np.minimum(budget, length)
    left = np.clip(rng.binomial(steps, 0.5), steps - (length - centre), centre)
    return centre - left, centre - left + steps
