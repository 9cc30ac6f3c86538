"""Alignments as calibrations read them, and what a calibration adds to a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmpt.calibration import AlignedVideo, Calibration, Spans
from mmpt.inference.moments import CaptionAlignment
from mmpt.utils.files import atomic_write

ALIGNERS = ("plan", "dtw", "otam", "window")
HEADING = "## Calibration\n"


def weights_of(alignment: CaptionAlignment, aligner: str) -> np.ndarray:
    """(N, W): how much of each sentence an aligner puts on each window.

    Args:
        alignment: of one video.
        aligner: plan: rows of the transport plan; dtw, otam: cells of the path, whichever was computed;
            window: the most similar window alone.
    """
    if aligner == "plan":
        return alignment.plan.cpu().numpy()
    if aligner in ("dtw", "otam"):
        return alignment.path.cpu().numpy().astype(np.float64)
    best = np.zeros(tuple(alignment.similarity.shape))
    best[np.arange(len(best)), alignment.similarity.cpu().numpy().argmax(1)] = 1.0
    return best


def with_truth(video_id: str, alignment: CaptionAlignment, truth: np.ndarray, aligner: str) -> AlignedVideo:
    """An alignment and its truth, as `mmpt.calibration.calibrate` reads them."""
    similarity, windows = (x.cpu().numpy() for x in (alignment.similarity, alignment.windows))
    return AlignedVideo(video_id, similarity, weights_of(alignment, aligner), windows, truth)


def spans_of(calibration: Calibration, alignment: CaptionAlignment) -> Spans:
    """What a calibration says of an alignment."""
    unknown = np.full((len(alignment.captions), 2), np.nan)
    video = with_truth("", alignment, unknown, str(calibration.settings["aligner"]))
    return calibration(video.known, video.length_s)


def note_in_card(card: Path, calibration: Calibration) -> None:
    """Says in a model card on what the model was calibrated, in place of what stood there."""
    about = calibration.about
    promised = f"spans that hold the true one with probability {calibration.coverage:g}"
    if calibration.visibility is not None:
        promised += (
            f", and calls sentences visible with at most {calibration.false_discovery:g} false discoveries"
        )
    text = (
        f"{HEADING}\n`align` gives {promised}, for videos like those of {about.get('data', 'calibration')}: "
        f"{about['videos']} videos, {about['sentences']} sentences, {about['visible']} of them visible; "
        f"aligner: {calibration.settings['aligner']}.\n"
    )
    before = card.read_text(encoding="utf-8").split(HEADING)[0].rstrip() if card.is_file() else "# Model"
    with atomic_write(card, "w") as file:
        file.write(f"{before}\n\n{text}")
