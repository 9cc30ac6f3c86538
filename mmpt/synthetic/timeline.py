"""Which step is shown in which seconds of a video."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mmpt.synthetic.parts import Step
from mmpt.synthetic.settings import Noise

# Ranges in whole seconds, both ends included.
EDGE_S = (2, 9)  # before the first and after the last step
STEP_S = (6, 16)
GAP_S = (1, 6)


@dataclass(frozen=True)
class Segment:
    """A step shown in seconds [start_s, end_s)."""

    step: Step
    start_s: int
    end_s: int


@dataclass(frozen=True)
class Video:
    """What happens in one video.

    Attributes:
        split, index: which video it is; they key its random streams.
        segments: in order of time, with background between them.
        length_s: seconds, which is also the number of features.
        task: number of the training task it follows; -1 in test videos.
        kind: of test videos: single, or base, permuted, exchanged, replaced, swapped in a group of
            look-alikes.
        group: number of that group, -1 without.
    """

    split: str
    index: int
    segments: tuple[Segment, ...] = field(repr=False)
    length_s: int
    task: int = -1
    kind: str = ""
    group: int = -1

    @property
    def id(self) -> str:
        return f"{self.split}{self.index:05d}"


def vary(steps: tuple[Step, ...], noise: Noise, rng: np.random.Generator) -> tuple[Step, ...]:
    """The steps as one person does them: some left out, one perhaps done twice, two neighbours perhaps
    exchanged."""
    kept = [
        step for step, draw in zip(steps, rng.random(len(steps)), strict=True) if draw >= noise.p_dropped
    ] or [steps[0]]
    if rng.random() < noise.p_repeated:
        at = int(rng.integers(len(kept)))
        kept.insert(at, kept[at])
    if rng.random() < noise.p_exchanged and len(kept) > 1:
        at = int(rng.integers(len(kept) - 1))
        kept[at : at + 2] = kept[at + 1], kept[at]
    return tuple(kept)


def lay_out(steps: tuple[Step, ...], rng: np.random.Generator) -> tuple[tuple[Segment, ...], int]:
    """Give every step its seconds.

    Returns:
        The segments and the length of the video in seconds.
    """
    now = _seconds(EDGE_S, rng)
    segments = []
    for step in steps:
        end = now + _seconds(STEP_S, rng)
        segments.append(Segment(step, now, end))
        now = end + _seconds(GAP_S, rng)
    return tuple(segments), segments[-1].end_s + _seconds(EDGE_S, rng)


def _seconds(bounds: tuple[int, int], rng: np.random.Generator) -> int:
    return int(rng.integers(bounds[0], bounds[1], endpoint=True))
