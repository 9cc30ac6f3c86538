"""The published formulas of Norton's loss, written down as they read: what `benchmarks/losses.py` compares
with.

Every tensor of all clip pairs and all token pairs exists at once, autograd keeps what it wants, Sinkhorn runs
in the log domain.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def plain_sinkhorn(scores: Tensor, log_mu: Tensor, log_nu: Tensor, n_iters: int = 50) -> Tensor:
    """Log plan of (..., N, M) scores."""
    u, v = torch.zeros_like(scores[..., 0]), torch.zeros_like(scores[..., 0, :])
    for _ in range(n_iters):
        u = log_mu - torch.logsumexp(scores + v[..., None, :], dim=-1)
        v = log_nu - torch.logsumexp(scores + u[..., :, None], dim=-2)
    return scores + u[..., :, None] + v[..., None, :]


def plain_token_similarity(
    text: Tensor, video: Tensor, text_mask: Tensor, video_mask: Tensor, alpha: float
) -> tuple[Tensor, Tensor]:
    """(A, B) both ways from the (A, B, T, F) cosines."""
    text_weight, video_weight = text_mask.to(text.dtype), video_mask.to(text.dtype)
    cosines = torch.einsum("atd,bfd->abtf", F.normalize(text, dim=-1), F.normalize(video, dim=-1))
    over_video = alpha * torch.log(
        (torch.exp(cosines / alpha) * video_weight[None, :, None, :]).sum(3)
    )  # (A, B, T)
    over_text = alpha * torch.log(
        (torch.exp(cosines / alpha) * text_weight[:, None, :, None]).sum(2)
    )  # (A, B, F)
    to_video = (over_video * text_weight[:, None]).sum(2) / text_weight.sum(1)[:, None]
    to_text = (over_text * video_weight).sum(2) / video_weight.sum(1)
    return to_video, to_text


def unit_interval(x: Tensor) -> Tensor:
    return (x - x.min()) / (x.max() - x.min())


def plain_norton(
    batch: dict[str, Tensor],
    length: int = 8,
    quantile: float = 0.3,
    epsilon: float = 0.1,
    weight: float = 0.1,
    beta: float = 0.3,
) -> Tensor:
    """Clip-caption loss with softened targets plus the video-paragraph loss, with the values of the published
    configuration."""
    video, text = batch["pooled_video"], batch["pooled_text"]
    n, s = len(video), len(video) // length
    own = torch.eye(n, dtype=video.dtype)
    scores = video @ text.T
    with torch.no_grad():
        mass = torch.full((n,), -math.log(2 * n), dtype=video.dtype)
        targets = beta * torch.exp(plain_sinkhorn(scores, mass, mass) + math.log(2 * n)) + (1 - beta) * own
    clip = (
        -(targets * scores.log_softmax(1)).sum(1).mean() - (targets.T * scores.T.log_softmax(1)).sum(1).mean()
    )

    pooled = unit_interval(F.normalize(text, dim=-1) @ F.normalize(video, dim=-1).T)
    directions = plain_token_similarity(
        batch["text_outputs"],
        batch["video_outputs"],
        batch["text_mask_outputs"],
        batch["video_mask_outputs"],
        alpha=1.0,
    )
    tokens = (unit_interval(directions[0]) + unit_interval(directions[1])) / 2
    similarity = (0.5 * pooled + tokens) / 1.5
    bucket = similarity.diagonal().kthvalue(max(1, int(quantile * n))).values
    blocks = similarity.view(s, length, s, length).transpose(1, 2).reshape(-1, length, length)
    with torch.no_grad():
        padded = F.pad(blocks, (0, 1, 0, 1)) / epsilon
        padded[:, length], padded[:, :, length] = bucket / epsilon, bucket / epsilon
        mass = torch.tensor([-math.log(2 * length)] * length + [-math.log(2.0)], dtype=video.dtype)
        plan = torch.exp(plain_sinkhorn(padded, mass, mass)[:, :length, :length])
        plan = plan * length / plan.sum((1, 2), keepdim=True)
    logits = (plan * blocks).sum((1, 2)).view(s, s) / 0.07
    order = torch.arange(s)
    return clip + weight * (F.cross_entropy(logits, order) + F.cross_entropy(logits.T, order))
