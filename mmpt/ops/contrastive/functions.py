"""Cross entropies on score matrices.

Shapes: N queries (rows), M candidates (columns). Half-precision scores are computed in float32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmpt.ops.normalize import unit_rows
from mmpt.ops.precision import full_precision


def dot_scores(queries: Tensor, candidates: Tensor) -> Tensor:
    """Dot products (N, M) of rows (N, D) and (M, D), in at least float32."""
    return full_precision(queries) @ full_precision(candidates).T


def cosine_scores(queries: Tensor, candidates: Tensor) -> Tensor:
    """Cosines (N, M) of rows (N, D) and (M, D), in at least float32; zero rows give zero and no gradient."""
    return unit_rows(queries) @ unit_rows(candidates).T


def info_nce(scores: Tensor, excluded: Tensor | None = None) -> Tensor:
    """Cross entropy of each row against its own column: -mean_i log softmax(scores_i)_i.

    Args:
        scores: (N, M), M >= N; column i is the positive of row i, the others are its negatives.
        excluded: (N, M) bool, true where a column is not to count as a negative; positives always stay.

    Returns:
        scalar; 0 for no rows.
    """
    scores = full_precision(scores)
    if scores.shape[0] == 0:
        return scores.sum()
    own = torch.arange(scores.shape[0], device=scores.device)
    return F.cross_entropy(exclude_negatives(scores, excluded), own)


def symmetric_info_nce(scores: Tensor, excluded: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`info_nce` of the rows and of the columns of a square matrix (N, N); the caller sums or averages."""
    scores = exclude_negatives(full_precision(scores), excluded)
    if scores.shape[0] == 0:
        return scores.sum(), scores.sum()
    own = torch.arange(scores.shape[0], device=scores.device)
    return F.cross_entropy(scores, own), F.cross_entropy(scores.T, own)


def exclude_negatives(scores: Tensor, excluded: Tensor | None) -> Tensor:
    """Scores with excluded off-diagonal entries so low that no softmax sees them, but finite, so that 0 *
    score stays 0."""
    if excluded is None:
        return scores
    # Not -inf: soft targets multiply scores by weights that may be 0, and 0 * -inf is NaN.
    own = torch.eye(*scores.shape, dtype=torch.bool, device=scores.device)
    return scores.masked_fill(excluded & ~own, torch.finfo(scores.dtype).min / 4)


def soft_cross_entropy(scores: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy against given target weights: -mean_i sum_j targets_ij log softmax(scores_i)_j.

    Args:
        scores: (N, M).
        targets: (N, M) weights, rows usually sum to one.

    Returns:
        scalar.
    """
    scores = full_precision(scores)
    aligned = (targets * scores).sum(1)  # log_softmax would keep one more (N, M) matrix for the backward pass
    return (targets.sum(1) * scores.logsumexp(1) - aligned).mean()


def milnce(scores: Tensor, positives_twice: bool = False) -> Tensor:
    """MIL-NCE from scores (B, B, C): clip i, owner j of the caption, candidate c; a scalar mean.

    -log of the share of a clip's own candidates in exp of its scores with all captions and of its own
    candidates' scores with the other clips; with `positives_twice` with all clips, its own again.
    """
    return _MILNCE.apply(full_precision(scores), positives_twice)


class _MILNCE(torch.autograd.Function):
    """Written out because autograd would keep and copy the scores several times, and in few steps, as those
    of a small batch take longer than their numbers."""

    @staticmethod
    def forward(ctx, scores: Tensor, positives_twice: bool) -> Tensor:
        n, of_clips = len(scores), scores.transpose(0, 1)
        if not positives_twice:
            own = torch.eye(n, dtype=torch.bool, device=scores.device)
            of_clips = of_clips.masked_fill(own[..., None], -torch.inf)
        everything = torch.cat([scores, of_clips], 1).flatten(1)
        logs = everything.log_softmax(1).view(n, 2 * n, -1)
        positive = logs[:, :n].diagonal().logsumexp(0)  # (B,) log-share of the own candidates
        ctx.save_for_backward(logs, positive)
        return positive.mean().neg()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        logs, positive = ctx.saved_tensors
        n, share = len(logs), logs.exp()
        found = share[:, :n] + share[:, n:].transpose(0, 1)
        found.diagonal().sub_((logs[:, :n].diagonal() - positive).exp_())
        return found.mul_(grad / n), None
