"""Paragraph-video retrieval as an audit needs it: one measure, shift-free or in a published form with any
constant.

The published cost is `constant - score`; a constant that no softmax loss can see decides the result
(docs/alignment.md).

Letters: V videos.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mmpt.evaluators.paragraphs import Block, Groups, Measure, Spread, paragraph_scores, shift_free_measures
from mmpt.evaluators.ranking import ScoreMatrix
from mmpt.historic.full_video import Protocol, published_measures


def video_scores(
    scores: Tensor,
    caption_video: np.ndarray,
    clip_video: np.ndarray,
    measure: str,
    published: tuple[str, float] | None,
) -> Tensor:
    """Score of every paragraph against every video.

    Args:
        scores: captions x clips.
        caption_video: video of each caption, 0..V-1.
        clip_video: video of each clip.
        measure: "DTW" or "OTAM".
        published: "exact" (the formula) or "historic" (the released code), and the constant; None:
            shift-free.

    Returns:
        (V, V) float64, high = close.
    """
    n_videos = int(clip_video.max()) + 1
    captions, clips = (
        Groups.from_lists([np.flatnonzero(of == video).tolist() for video in range(n_videos)])
        for of in (caption_video, clip_video)
    )
    matrix = ScoreMatrix(scores)
    found = torch.empty(n_videos, n_videos, dtype=torch.float64)
    of = (
        _shift_free(matrix, measure)
        if published is None
        else _published(measure, *published, captions, clips)
    )
    for queries, parts in paragraph_scores(matrix, captions, clips, of):
        found[queries] = parts[""].double()
    return found


def _shift_free(matrix: ScoreMatrix, measure: str) -> Measure:
    spread = Spread.of(matrix)
    return lambda block: {"": shift_free_measures(block, spread)[measure]}


def _published(measure: str, form: str, constant: float, captions: Groups, clips: Groups) -> Measure:
    largest = captions.index.shape[1], clips.index.shape[1]
    protocol = Protocol(dtw_offset=constant, otam_offset=constant)

    def of(block: Block) -> dict[str, Tensor]:
        lengths = block.rows, block.cols
        values = published_measures(block.scores, lengths, largest, protocol, as_released=form == "historic")
        return {"": values[f"{form}-{measure}"]}

    return of
