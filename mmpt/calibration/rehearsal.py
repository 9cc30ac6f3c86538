"""How calibrations fare on videos that they have not seen, over random splits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmpt.calibration.calibration import AlignedVideo, Calibration, Sentences, calibrate
from mmpt.calibration.conformal import group_quantile


class Rehearsal(NamedTuple):
    """Means over the test videos of one split.

    Attributes:
        coverage: share of visible sentences whose span holds the true one.
        width_s: mean width of their spans, seconds.
        fixed_coverage, fixed_width_s: the same of windows of one width round the centre of each sentence,
            as wide as conformal prediction on the same videos asks for.
        false_discovery: share of the sentences called visible that are not; 0 where none is called so.
        power: share of the visible sentences that are called so.
    """

    coverage: float
    width_s: float
    fixed_coverage: float
    fixed_width_s: float
    false_discovery: float
    power: float


def rehearse(
    videos: Sequence[AlignedVideo],
    coverage: float = 0.9,
    false_discovery: float = 0.1,
    splits: int = 20,
    n_calibration: int | None = None,
    seed: int = 0,
) -> list[Rehearsal]:
    """Calibrate on some of the videos and test on the others, `splits` times.

    Args:
        videos: with their truth.
        coverage, false_discovery: what is promised.
        splits: how many random splits.
        n_calibration: videos of each calibration; None: half of them.
        seed: of the splits.
    """
    rng, found = np.random.default_rng(seed), []
    n_calibration = n_calibration or len(videos) // 2
    for split in range(splits):
        order = rng.permutation(len(videos))
        known, asked = ([videos[i] for i in part] for part in (order[:n_calibration], order[n_calibration:]))
        made = calibrate(known, coverage, false_discovery, seed=split)
        half_width = _fixed_half_width(Sentences.of(known), coverage)
        found.append(_tested(Sentences.of(asked), made, half_width))
    return found


def _tested(asked: Sentences, made: Calibration, half_width: float) -> Rehearsal:
    spans, seen = made(asked.known, asked.length_s, asked.video), asked.seen
    centre = asked.known.centre
    fixed = np.clip(centre - half_width, 0, None), np.minimum(centre + half_width, asked.length_s)

    def share_and_width(low: np.ndarray, high: np.ndarray) -> tuple[float, float]:
        held = (low <= asked.truth[:, 0] + 1e-9) & (high >= asked.truth[:, 1] - 1e-9)
        of = asked.video[seen]
        return _over_videos(held[seen], of), _over_videos((high - low)[seen], of)

    row = (*share_and_width(spans.low, spans.high), *share_and_width(*fixed))
    if spans.visible is None:
        return Rehearsal(*row, float("nan"), float("nan"))
    called, n_videos = spans.visible, asked.video.max() + 1
    wrong, all_called = (np.bincount(asked.video, x, n_videos) for x in (called & ~seen, called))
    power = _over_videos(called[seen], asked.video[seen])
    return Rehearsal(*row, float(np.mean(wrong / np.maximum(all_called, 1))), power)


def _over_videos(values: np.ndarray, video: np.ndarray) -> float:
    """Mean of the means of videos."""
    counts = np.bincount(video)
    return float(np.mean((np.bincount(video, values) / np.maximum(counts, 1))[counts > 0]))


def _fixed_half_width(known: Sentences, coverage: float) -> float:
    reach = np.maximum(known.known.centre - known.truth[:, 0], known.truth[:, 1] - known.known.centre)
    return group_quantile(reach[known.seen], known.video[known.seen], coverage)
