"""Where sentences that are told in order may be: a posterior over all ordered segmentations of a video.

Every window shows one sentence or none; sentences follow each other, may be left out, and may have windows
without any between them. A window that shows sentence i weighs exp(sharpness (z - threshold)), z its
standardised similarity. The sums over all segmentations are those of a hidden Markov model (Rabiner, 1989).

Letters: N sentences, W windows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

ENTER, LEAVE_OUT = 0.2, 0.3  # weight of beginning a sentence, and of each one that is passed over
THRESHOLD = 0.5  # standard deviations above its mean from which a window rather shows the sentence


class Posterior(NamedTuple):
    """Of one video.

    Attributes:
        shown: (N, W) probability that the window shows the sentence.
        begins: (N, W) that the sentence begins with the window; its sum is the probability of any.
        ends: (N, W) that it ends with the window.
    """

    shown: np.ndarray
    begins: np.ndarray
    ends: np.ndarray


def ordered_posterior(similarity: np.ndarray, sharpness: float = 1.5) -> Posterior:
    """The posterior of the segmentations.

    Args:
        similarity: (N, W), sentences in the order in which they are told.
        sharpness: how much a standard deviation counts.
    """
    n, n_windows = similarity.shape
    standard = (similarity - similarity.mean(1, keepdims=True)) / (similarity.std() + 1e-9)
    weight = np.exp(np.clip(sharpness * (standard - THRESHOLD), -30, 30))  # (N, W)
    step = (
        np.arange(n)[None] - np.arange(n + 1)[:, None]
    )  # from `k sentences told` to sentence j: j - k left out
    jump = np.where(step >= 0, ENTER * LEAVE_OUT ** np.maximum(step, 0), 0.0)  # (N + 1, N)

    # forward: inside[i, w], and after[k, w] with k sentences told and none shown
    inside, entered, after = np.zeros((n, n_windows)), np.zeros((n, n_windows)), np.zeros((n + 1, n_windows))
    told, now = np.zeros(n + 1), np.zeros(n)
    told[0] = 1.0
    for w in range(n_windows):
        passed = told.copy()
        passed[1:] += now  # the sentence shown before may have ended
        entered[:, w] = weight[:, w] * (passed @ jump)
        now_next = weight[:, w] * now + entered[:, w]
        scale = now_next.sum() + passed.sum()
        now, told = now_next / scale, passed / scale
        inside[:, w], after[:, w], entered[:, w] = now, told, entered[:, w] / scale
    # backward, with scales of its own: only ratios within a window count
    back_in, back_after = np.ones((n, n_windows)), np.ones((n + 1, n_windows))
    for w in range(n_windows - 2, -1, -1):
        ahead = jump @ (weight[:, w + 1] * back_in[:, w + 1]) + back_after[:, w + 1]
        stay = weight[:, w + 1] * back_in[:, w + 1] + ahead[1:]
        scale = ahead.max() + stay.max()
        back_after[:, w], back_in[:, w] = ahead / scale, stay / scale
    total = (inside * back_in).sum(0) + (after * back_after).sum(0)
    shown = inside * back_in / total
    begins = entered * back_in / total
    ends = shown.copy()
    ends[:, :-1] -= shown[:, 1:] - begins[:, 1:]  # shown now, and not by staying in the next
    return Posterior(shown, begins, np.clip(ends, 0, None))
