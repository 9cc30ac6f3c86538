"""What an alignment tells of each sentence: where it may be, and how sure that is.

Letters: N sentences, W windows, Q quantities.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mmpt.calibration.ordered import ordered_posterior

LOW, HIGH = 0.1, 0.9  # of the mass of a sentence, from whose places its span is first guessed
NEAR = 2  # windows


class Evidence(NamedTuple):
    """Of one video.

    Attributes:
        centre: (N,) seconds, middle of the sentence's mass.
        seconds: (N, Q) quantities in seconds, none of which changes where all times are shifted.
        signs: (N, Q) numbers that say how much the alignment is to be trusted.
    """

    centre: np.ndarray
    seconds: np.ndarray
    signs: np.ndarray


def evidence(similarity: np.ndarray, weights: np.ndarray, windows: np.ndarray) -> Evidence:
    """What is known of the sentences of a video, from the output of any aligner.

    Args:
        similarity: (N, W) of each sentence with each window.
        weights: (N, W) how much of a sentence an aligner puts on a window: rows of a transport plan, cells
            of a path, or the best window alone. A row of zeros is spread evenly.
        windows: (W, 2) start and end, in seconds.
    """
    similarity, windows = np.asarray(similarity, dtype=np.float64), np.asarray(windows, dtype=np.float64)
    weights = np.asarray(weights, dtype=np.float64)
    total = weights.sum(1, keepdims=True)
    share = np.divide(weights, total, out=np.full_like(weights, 1 / weights.shape[1]), where=total > 0)
    middle, length = windows.mean(1), float(windows[:, 1].max())
    centre = share @ middle
    spread = np.sqrt(share @ middle**2 - centre**2 + 1e-9)
    mass = share.cumsum(1)
    low, high = (windows[(mass >= level - 1e-9).argmax(1), side] for level, side in ((LOW, 0), (HIGH, 1)))
    n = len(centre)
    before = np.diff(centre, prepend=0.0) if n else centre
    after = np.diff(centre, append=length) if n else centre
    sizes = [low - centre, high - centre, spread, before, after, np.full(n, length / max(n, 1))]
    ordered = ordered_posterior(similarity)
    told = ordered.begins.sum(1)
    for part, side, level in (
        (ordered.begins, 0, LOW),
        (ordered.begins, 0, 0.5),
        (ordered.ends, 1, 0.5),
        (ordered.ends, 1, HIGH),
    ):
        place = (part.cumsum(1) >= level * part.sum(1, keepdims=True) - 1e-12).argmax(1)
        sizes.append(windows[place, side] - centre)
    for part in (ordered.begins, ordered.ends):
        share_there = part / (part.sum(1, keepdims=True) + 1e-12)
        mean = share_there @ middle
        sizes.append(np.sqrt(np.clip(share_there @ middle**2 - mean**2, 0, None)))
    seconds = np.stack(sizes, axis=1)

    mean, deviation = similarity.mean(1), similarity.std(1) + 1e-6
    best = similarity.argmax(1)
    standing = (similarity.max(1) - mean) / deviation
    at_place = ((share * similarity).sum(1) - mean) / deviation
    step = float(np.median(windows[:, 1] - windows[:, 0]))
    far = np.abs(middle[None] - centre[:, None]) > NEAR * step + (high - low)[:, None] / 2
    rival = np.where(far, similarity, -np.inf).max(1)
    inside = np.where(far, -np.inf, similarity).max(1)
    margin = np.clip((inside - np.maximum(rival, similarity.min(1))) / deviation, -9, 9)
    place = np.abs(middle[None] - centre[:, None]).argmin(1)
    rivals = similarity[:, place].T  # (N, N): each place with every sentence
    among = (np.diagonal(rivals) - rivals.mean(1)) / (rivals.std(1) + 1e-6)
    height = (similarity.max(1) - similarity.mean()) / (similarity.std() + 1e-6)
    astray = np.log1p(np.abs(middle[best] - centre) / step)
    known = [
        standing,
        at_place,
        margin,
        among,
        height,
        astray,
        np.log1p(spread / step),
        np.log1p((high - low) / step),
        np.log((told + 1e-3) / (1 - told + 1e-3).clip(1e-3)),
        ordered.shown.max(1),
    ]
    return Evidence(centre, seconds, np.stack(known, axis=1))
