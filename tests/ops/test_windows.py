"""Where windows lie, and windows back to one video."""

import numpy as np
import pytest
import torch

from mmpt.ops.windows import mean_by_second, merge_windows, window_ranges, window_seconds
from tests.conftest import golden_cases, load_golden


@pytest.mark.parametrize("path", golden_cases("norton_metrics*.npz"))
def test_golden_norton_metrics_merge(path):
    arrays = load_golden(path)
    for i in range(sum(name.startswith("merge") and name.endswith("_out") for name in arrays)):
        merged = merge_windows(
            torch.as_tensor(arrays[f"merge{i}_logits"]), *arrays[f"merge{i}_len_stride_size"].tolist()
        )
        np.testing.assert_allclose(merged, arrays[f"merge{i}_out"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "length, stride, size", [(1, 16, 32), (32, 16, 32), (33, 16, 32), (53, 8, 8), (100, 16, 32), (40, 32, 16)]
)
def test_the_number_of_windows_follows_the_formula(length, stride, size):
    ranges = window_ranges(length, size, stride)
    assert len(ranges) == 1 + max(0, -(-(length - size) // stride))
    assert ranges[-1][1] == length or stride > size


def test_rows_that_agree_survive_merging():
    truth = torch.randn(45, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = torch.cat([truth[start:end] for start, end in window_ranges(45, 16, 8)])
    assert torch.allclose(merge_windows(rows, 45, 8, 16), truth)


def test_rows_of_other_windows_are_refused():
    with pytest.raises(ValueError, match="50 rows for a video of 45 s"):
        merge_windows(torch.ones(50, 2), 45, 8, 16)


def test_windows_lie_side_by_side_unless_a_stride_is_given():
    assert window_ranges(5, 8) == [(0, 5)]
    assert window_ranges(37, 16) == [(0, 16), (16, 32), (32, 37)]
    assert window_ranges(20, 16, 8) == [(0, 16), (8, 20)]


def test_rows_of_one_second_are_averaged():
    second = window_seconds(torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]), 2)
    assert second.tolist() == [0, 1, 2, 3, 2, 3, 4]
    assert mean_by_second(torch.arange(7.0)[:, None], second).flatten().tolist() == [0, 1, 3, 4, 6]


def test_windows_that_never_advance_are_refused():
    with pytest.raises(ValueError, match="stride=0"):
        window_ranges(20, 16, 0)
