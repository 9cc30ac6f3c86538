"""Spans with a promised coverage, as rows of a report: what a calibration on half of the test videos says of
the other half. `mmpt calibrate` keeps one with a model; `docs/calibration.md` tells how it is made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmpt.calibration import AlignedVideo
from mmpt.calibration.rehearsal import Rehearsal, rehearse

COVERAGE, FALSE_DISCOVERY = 0.9, 0.1  # promised
SPLITS = 10
LEAST_VIDEOS = 40  # half of them calibrate, and half of those say how far the guess is to be trusted
NAMES = {  # of Rehearsal -> in reports
    "coverage": "calibrated-coverage",
    "width_s": "calibrated-width",
    "fixed_coverage": "fixed window-coverage",
    "fixed_width_s": "fixed window-width",
    "false_discovery": "calibrated-false_discovery",
    "power": "calibrated-visible_found",
}


def calibrated_rows(videos: Sequence[AlignedVideo], unit: str) -> tuple[dict[str, float], dict[str, str]]:
    """Values and facts of a report.

    Args:
        videos: alignments of the test videos with their truth.
        unit: of the times.

    Returns:
        Means over random halves of the videos: coverage and width of the spans of visible sentences, the same
        of a fixed window round each centre, and where some sentences are not visible, false discovery and
        power of the decision. No values where too few videos have a visible sentence.
    """
    shown = sum(bool(np.isfinite(video.truth).all(1).any()) for video in videos)
    name = "calibrated spans"
    if shown < LEAST_VIDEOS:
        return {}, {name: f"none: {shown} videos have visible sentences, of {LEAST_VIDEOS} needed"}
    tested = np.mean(rehearse(videos, COVERAGE, FALSE_DISCOVERY, SPLITS), axis=0)
    found = dict(zip(Rehearsal._fields, tested.tolist(), strict=True))
    promised = f"coverage of {COVERAGE:.0%}, widths in {unit}; {SPLITS} random halves of {len(videos)} videos"
    if np.isfinite(found["power"]):
        promised = f"false discovery of {FALSE_DISCOVERY:.0%} at most, {promised}"
    values = {NAMES[key]: value for key, value in found.items() if np.isfinite(value)}
    return values, {name: f"promised: {promised}"}


def aligned_by_best(
    video_id: str, similarity: np.ndarray, truth: np.ndarray, weights: np.ndarray | None = None
) -> AlignedVideo:
    """A video whose windows are its seconds or clips, one after the other.

    Args:
        video_id: its name.
        similarity: (N, W).
        truth: (N, 2) start and end of each sentence; NaN where it is not visible.
        weights: (N, W) what the aligner chose; None: the most similar window.
    """
    n_windows = similarity.shape[1]
    starts = np.arange(n_windows, dtype=np.float64)
    if weights is None:
        weights = np.eye(n_windows)[similarity.argmax(1)]
    return AlignedVideo(video_id, similarity, weights, np.stack([starts, starts + 1], axis=1), truth)
