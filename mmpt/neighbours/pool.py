"""Pools that collect one vector per video while the training set is encoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.distributed as dist
from torch import Tensor

from mmpt.neighbours.index import VectorRetriever
from mmpt.ops.distributed import world_size
from mmpt.registry import VECTOR_POOLS


def video_vectors(pooled_video: Tensor, pooled_text: Tensor, clips_per_video: int) -> Tensor:
    """Mean over a video's clips of the mean of its two pooled vectors.

    Args:
        pooled_video: (V*K, D), rows video-major.
        pooled_text: (V*K, D).
        clips_per_video: K.

    Returns:
        (V, D) float32.
    """
    clips = (pooled_video.float() + pooled_text.float()) / 2
    return clips.unflatten(0, (-1, clips_per_video)).mean(1)


@VECTOR_POOLS.register()
class VideoVectorPool:
    """Each process keeps the videos it encoded and composes its share of the batches from those."""

    shared = False

    def __init__(self, retriever: VectorRetriever):
        self.retriever = retriever

    def add(
        self, video_ids: Sequence[str], pooled_video: Tensor, pooled_text: Tensor, clips_per_video: int
    ) -> None:
        """Store the vectors of a batch of videos; shapes as in `video_vectors`."""
        self.retriever.add(video_ids, video_vectors(pooled_video, pooled_text, clips_per_video))

    def finalise(self) -> None:
        """Called once all videos are in."""


@VECTOR_POOLS.register()
class DistributedVideoVectorPool(VideoVectorPool):
    """Every process ends up with the videos of all, so neighbours are found across the whole training set."""

    shared = True

    def finalise(self) -> None:
        """Exchange vectors; afterwards every process holds all of them, in rank order."""
        if world_size() == 1:
            return
        parts: list[Any] = [None] * world_size()  # ids and vectors
        dist.all_gather_object(parts, (self.retriever.ids, self.retriever.vectors.cpu()))
        device = self.retriever.vectors.device
        self.retriever.clear()
        for ids, vectors in parts:
            self.retriever.add(ids, vectors.to(device))
