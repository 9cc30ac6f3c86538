"""Small layers that several models share."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class VideoTokenMLP(nn.Module):
    """Video features -> tokens of the transformer's width: linear, activation, LayerNorm, linear.

    Args:
        input_dim: width of one feature vector (512 for S3D).
        hidden_size: width of the transformer.
        activation: module between the layers.
    """

    def __init__(self, input_dim: int, hidden_size: int, activation: nn.Module):
        super().__init__()
        self.linear1 = nn.Linear(input_dim, hidden_size)
        self.activation = activation
        self.LayerNorm = nn.LayerNorm(hidden_size)  # eps 1e-5, unlike BERT's 1e-12
        self.linear2 = nn.Linear(hidden_size, hidden_size)

    def forward(self, features: Tensor) -> Tensor:
        """Features (..., input_dim) -> tokens (..., hidden_size).

        Raises:
            ValueError: features of another width.
        """
        check_width(features, self.linear1.in_features)
        return self.linear2(self.LayerNorm(self.activation(self.linear1(features))))


def check_width(features: Tensor, expected: int) -> None:
    """Raises ValueError where features (..., D) are not as wide as what reads them."""
    if features.shape[-1] != expected:
        raise ValueError(
            f"features have {features.shape[-1]} numbers a vector, the video tower reads {expected}: set "
            f"model.feature_dim={features.shape[-1]} (N modalities: width of the modality), or take "
            "the features that its weights were trained on."
        )


def masked_mean(sequence: Tensor, mask: Tensor) -> Tensor:
    """Mean over the positions where `mask` (B, L) is true: (B, L, D) -> (B, D).

    A row without any such position gives zeros. Sums run as one matrix product with weights 1/n in the
    sequence's dtype, so half precision cannot overflow.
    """
    weights = mask.to(sequence.dtype)
    weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.bmm(weights[:, None], sequence)[:, 0]


class FeatureNorm(nn.Module):
    """Features minus their mean over the training data, optionally in axes that are uncorrelated there.

    Mean and map are buffers: a checkpoint holds what its model was trained with. Until `settle` is called, or
    a checkpoint loaded, features pass as they are.

    Args:
        dim: width of the features.
        whiten: also multiply by the inverse square root of the covariance.
    """

    SHRINK = 1e-2  # of the mean variance, added to every axis: those without variance are not blown up

    mean: Tensor
    whitening: Tensor

    def __init__(self, dim: int, whiten: bool = False):
        super().__init__()
        self.whitens = whiten
        self.register_buffer("mean", torch.zeros(dim))
        if whiten:
            self.register_buffer("whitening", torch.eye(dim))
        self._count, self._sum, self._products = 0, torch.zeros(dim, dtype=torch.float64), 0.0

    def observe(self, vfeats: Tensor, vmasks: Tensor, **batch: object) -> None:
        """Take the valid seconds (vmasks (B, F)) of vfeats (B, F, dim) into the statistics."""
        check_width(vfeats, len(self.mean))
        seconds = vfeats[vmasks].double()
        self._count += len(seconds)
        self._sum += seconds.sum(0)
        if self.whitens:
            self._products = self._products + seconds.T @ seconds

    def settle(self) -> None:
        """Fix mean and map; what was observed is forgotten."""
        if not self._count:
            raise ValueError("dataset.feature_norm: the training data gave no second of video to measure.")
        mean = self._sum / self._count
        self.mean.copy_(mean)
        if self.whitens:
            covariance = self._products / self._count - torch.outer(mean, mean)
            ridge = self.SHRINK * covariance.diagonal().mean()
            values, axes = torch.linalg.eigh(covariance + ridge * torch.eye(len(mean), dtype=torch.float64))
            self.whitening.copy_(axes * values.rsqrt() @ axes.T)
        self._count, self._sum, self._products = 0, torch.zeros_like(self._sum), 0.0

    def forward(self, features: Tensor) -> Tensor:
        """Features (..., dim)."""
        check_width(features, len(self.mean))
        centred = features - self.mean
        return centred @ self.whitening if self.whitens else centred
