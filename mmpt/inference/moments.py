"""Long videos as windows: where windows lie, which of them captions belong to, and search over many videos.

Letters: N captions, W windows, D width. All times are seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmpt.calibration import Spans
from mmpt.neighbours.exact import Moment
from mmpt.ops.alignment import dtw_path, otam_path
from mmpt.ops.sinkhorn import log_sinkhorn


@dataclass(frozen=True)
class CaptionAlignment:
    """Which seconds of one video each caption belongs to.

    Attributes:
        captions: the N captions, in the order of the video.
        windows: (W, 2) start and end of each window.
        similarity: (N, W) cosines.
        plan: (N, W) transport plan, captions and windows sharing the mass equally; sums to 1.
        path: (N, W) bool, cells of the cheapest monotone path.
        calibrated: spans with stated coverage, and which captions are visible; None: the model has no
            calibration for this kind of alignment.
    """

    captions: Sequence[str]
    windows: Tensor
    similarity: Tensor
    plan: Tensor
    path: Tensor
    calibrated: Spans | None = None

    def spans(self) -> Iterator[tuple[str, float, float]]:
        """(caption, start, end) along the path; captions that the path leaves out are skipped."""
        for caption, cells in zip(self.captions, self.path, strict=True):
            chosen = self.windows[cells]
            if len(chosen):
                yield caption, float(chosen[:, 0].min()), float(chosen[:, 1].max())


def align_captions(
    captions: Sequence[str],
    text: Tensor,
    video: Tensor,
    windows: Tensor,
    relaxed: bool = False,
    epsilon: float = 0.1,
    n_iters: int = 50,
) -> CaptionAlignment:
    """Aligns captions with the windows of a video, by order (path) and by optimal transport (plan).

    Args:
        captions: the N captions.
        text: (N, D) their vectors.
        video: (W, D) vectors of the windows.
        windows: (W, 2) their times.
        relaxed: OTAM instead of DTW: every window takes one caption, and the first and last captions may be
            left out, as when a video shows only a part of a recipe.
        epsilon: entropic regulariser, for similarities scaled to [0, 1].
        n_iters: Sinkhorn steps.

    Raises:
        ValueError: epsilon is not positive.
    """
    if epsilon <= 0:
        raise ValueError(
            f"epsilon={epsilon} must be positive; for a sharp plan use a small one, such as 0.01."
        )
    text, video = (torch.nn.functional.normalize(x.float(), dim=-1) for x in (text, video))
    similarity = text @ video.T
    scores = similarity - similarity.min()
    scores = scores / scores.max().clamp(min=torch.finfo(scores.dtype).eps)
    n, w = scores.shape
    log_mu, log_nu = (torch.full((size,), -math.log(size), device=scores.device) for size in (n, w))
    plan = log_sinkhorn(scores / epsilon, log_mu, log_nu, n_iters).exp()
    cost = 1 - similarity
    path = otam_path(cost) if relaxed else dtw_path(cost)
    return CaptionAlignment(captions, windows, similarity, plan, path)


@dataclass(frozen=True)
class MomentIndex:
    """Vectors of the windows of some videos, in memory; `mmpt.inference.search` keeps those of many on disk.

    Attributes:
        video_ids: (n,) the video of each window.
        windows: (n, 2) its start and end.
        vectors: (n, D) float32.
    """

    video_ids: np.ndarray
    windows: np.ndarray
    vectors: np.ndarray

    def search(self, query: np.ndarray, k: int) -> list[Moment]:
        """The k windows with the greatest dot product with `query` (D,), best first; of windows that overlap
        the best one alone."""
        if k < 1:
            raise ValueError(f"k={k}: ask for at least one moment.")
        scores, found = self.vectors @ query, []
        by_video: dict[str, list[Moment]] = {}
        for i in np.argsort(-scores, kind="stable"):
            start, end = map(float, self.windows[i])
            moment = Moment(str(self.video_ids[i]), start, end, float(scores[i]))
            better = by_video.setdefault(moment.video_id, [])
            if not any(moment.overlaps(other) for other in better):
                better.append(moment)
                found.append(moment)
            if len(found) == k:
                break
        return found
