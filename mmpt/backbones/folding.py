"""Convolutional networks made fast for inference, with the same results up to rounding."""

from __future__ import annotations

import ctypes
import sys
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_weights

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
BATCH_NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # options of glibc's mallopt
Network = TypeVar("Network", bound=nn.Module)


@torch.no_grad()
def for_inference(network: Network) -> Network:
    """Folds every BatchNorm into the convolution before it; without a GPU also stores weights channels last,
    which CPUs multiply faster.

    Args:
        network: of this project, its layers registered in the order in which they run. It is changed, and
            cannot be trained further.

    Returns:
        The network, in eval mode.

    Raises:
        ValueError: a BatchNorm follows no convolution of its width.
    """
    convolution = None
    for name, layer in list(network.named_modules()):
        if isinstance(layer, CONVOLUTIONS):
            convolution = layer
        elif isinstance(layer, BATCH_NORMS):
            if convolution is None or convolution.out_channels != layer.num_features:
                raise ValueError(
                    f"{name}: a BatchNorm of {layer.num_features} channels without a convolution before "
                    "it cannot be folded."
                )
            _fold(convolution, layer)
            network.set_submodule(name, nn.Identity())
            convolution = None
    for layer in network.modules():
        if isinstance(layer, CONVOLUTIONS) and not torch.cuda.is_available():
            layer.to(
                memory_format=torch.channels_last if isinstance(layer, nn.Conv2d) else torch.channels_last_3d
            )
    return network.eval().requires_grad_(False)


def keep_freed_memory() -> None:
    """Lets this process keep the memory it frees, for the next batch of the same size, instead of handing it
    back to the system.

    Otherwise a third of the time of a large network on a CPU goes into clearing pages. Does nothing where the
    C library is not glibc.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "gnu_get_libc_version"):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def _fold(convolution: nn.Conv2d | nn.Conv3d, norm: nn.BatchNorm2d | nn.BatchNorm3d) -> None:
    statistics = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        convolution.weight, convolution.bias, *statistics
    )
