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
        """Features (..., input_dim) -> tokens (..., hidden_size)."""
        return self.linear2(self.LayerNorm(self.activation(self.linear1(features))))


def masked_mean(sequence: Tensor, mask: Tensor) -> Tensor:
    """Mean over the positions where `mask` (B, L) is true: (B, L, D) -> (B, D).

    A row without any such position gives zeros. Sums run as one matrix product with weights 1/n in the
    sequence's dtype, so half precision cannot overflow.
    """
    weights = mask.to(sequence.dtype)
    weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.bmm(weights[:, None], sequence)[:, 0]
