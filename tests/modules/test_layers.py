"""Shared layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmpt.modules.layers import VideoTokenMLP, masked_mean


def test_video_token_mlp_is_linear_activation_layernorm_linear():
    layer = VideoTokenMLP(5, 4, nn.GELU()).double()
    x = torch.randn(2, 3, 5, dtype=torch.float64)
    hidden = nn.functional.gelu(x @ layer.linear1.weight.T + layer.linear1.bias)
    centred = hidden - hidden.mean(-1, keepdim=True)
    normed = centred / (hidden.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(layer(x), normed @ layer.linear2.weight.T + layer.linear2.bias)


def test_masked_mean_equals_the_loop():
    sequence = torch.randn(3, 6, 4, dtype=torch.float64)
    mask = torch.tensor([[1, 0, 1, 0, 0, 1], [0, 0, 0, 1, 0, 0], [1, 1, 1, 1, 1, 1]]).bool()
    expected = torch.stack([row[keep].mean(0) for row, keep in zip(sequence, mask, strict=True)])
    torch.testing.assert_close(masked_mean(sequence, mask), expected)


def test_masked_mean_of_nothing_is_zero():
    assert masked_mean(torch.randn(1, 3, 2), torch.zeros(1, 3, dtype=torch.bool)).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_masked_mean_does_not_overflow_in_half_precision(dtype):
    pooled = masked_mean(
        torch.full((1, 2048, 1), 60000.0, dtype=dtype), torch.ones(1, 2048, dtype=torch.bool)
    )
    assert pooled.isfinite().all() and pooled.dtype == dtype
