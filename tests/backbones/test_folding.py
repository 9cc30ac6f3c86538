"""Networks made fast for inference give what they gave before."""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mmpt.backbones.audio import AudioResNet
from mmpt.backbones.folding import for_inference, keep_freed_memory
from mmpt.backbones.r2plus1d import R2Plus1D
from mmpt.backbones.s3d import S3D


def drawn(network):
    """Weights that leave no layer without an effect, statistics of BatchNorm unlike those of a new one."""
    generator = torch.Generator().manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Conv3d, nn.Linear)):
            layer.weight.data.normal_(0, (2 / layer.weight[0].numel()) ** 0.5, generator=generator)
        if isinstance(layer, (nn.BatchNorm2d, nn.BatchNorm3d)):
            for tensor in (layer.running_var, layer.weight.data, layer.running_mean, layer.bias.data):
                tensor.uniform_(0.5, 1.5, generator=generator)
    return network.eval()


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (lambda: S3D(n_words=2), (2, 3, 6, 34, 38)),
        (R2Plus1D, (2, 3, 5, 18, 16)),
        (AudioResNet, (2, 1, 40, 33)),
    ],
)
def test_folded_network_gives_what_it_gave(network, shape):
    network = drawn(network())
    clips = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = network(clips)
        got = for_inference(network)(clips)
    expected, got = (x["mixed_5c"] if isinstance(x, dict) else x for x in (expected, got))
    assert expected[0].std() > 1e-3
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    assert not any(isinstance(layer, (nn.BatchNorm2d, nn.BatchNorm3d)) for layer in network.modules())


def test_norm_that_follows_no_convolution_of_its_width_is_refused():
    with pytest.raises(ValueError, match="1: a BatchNorm of 4 channels"):
        for_inference(nn.Sequential(nn.Conv2d(3, 5, 1), nn.BatchNorm2d(4)))


def test_norm_in_front_of_any_convolution_is_refused():
    with pytest.raises(ValueError, match="without a convolution before it"):
        for_inference(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)))


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def free_a_block():
    """Exit status 0 where a freed block stays with the process."""
    keep_freed_memory()
    block = np.ones(400 << 20, np.uint8)  # more than any test before has left free
    full = resident_bytes()
    del block
    sys.exit(full - resident_bytes() > 200 << 20)


@pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="reads the memory of a process as Linux shows it"
)
def test_freed_memory_stays_with_the_process():
    process = multiprocessing.get_context("spawn").Process(target=free_a_block)
    process.start()
    process.join()
    assert process.exitcode == 0
