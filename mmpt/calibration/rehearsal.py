"""How calibrations fare on videos that they have not seen, over random splits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmpt.calibration.calibration import AlignedVideo, calibrate
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
        half_width = _fixed_half_width(known, coverage)
        rows = [_of_video(video, made, half_width) for video in asked]
        columns = zip(*rows, strict=True)
        found.append(Rehearsal(*(_mean(column) for column in columns)))
    return found


def _of_video(video: AlignedVideo, made, half_width: float) -> tuple[float, ...]:
    spans, truth = made(video.known, video.length_s), np.asarray(video.truth, dtype=np.float64)
    seen = np.isfinite(truth).all(1)
    fixed = (
        np.clip(video.known.centre - half_width, 0, None),
        np.minimum(video.known.centre + half_width, video.length_s),
    )
    row: list[float] = []
    for low, high in ((spans.low, spans.high), fixed):
        held = (low <= truth[:, 0] + 1e-9) & (high >= truth[:, 1] - 1e-9)
        row += [_mean(held[seen]), _mean((high - low)[seen])]
    if spans.visible is None:
        return (*row, float("nan"), float("nan"))
    called = spans.visible
    wrong = float((called & ~seen).sum() / max(called.sum(), 1))
    return (*row, wrong, _mean(called[seen]))


def _fixed_half_width(videos: Sequence[AlignedVideo], coverage: float) -> float:
    scores, groups = [], []
    for number, video in enumerate(videos):
        truth, centre = np.asarray(video.truth, dtype=np.float64), video.known.centre
        seen = np.isfinite(truth).all(1)
        scores.append(np.maximum(centre - truth[:, 0], truth[:, 1] - centre)[seen])
        groups.append(np.full(int(seen.sum()), number))
    return group_quantile(np.concatenate(scores), np.concatenate(groups), coverage)


def _mean(values) -> float:
    """Of what is a number; NaN where nothing is."""
    values = np.asarray(list(values), dtype=np.float64)
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")
