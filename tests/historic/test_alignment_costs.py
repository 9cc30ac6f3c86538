"""The historic functions against arrays of the released evaluations."""

import numpy as np
import pytest
import torch

from mmpt.historic import alignment_costs as compat
from tests.conftest import golden_cases, load_golden


def primitives(path):
    """Every `prim<i>` group of a file: cost blocks, their lengths, padding target, reference arrays."""
    arrays = load_golden(path)
    for i in range(sum(name.endswith("_dist") for name in arrays)):
        cost = torch.as_tensor(arrays[f"prim{i}_dist"])
        lead = cost.shape[:-2]
        lengths = torch.full(lead, cost.shape[-2]), torch.full(lead, cost.shape[-1])
        reference = {
            name.removeprefix(f"prim{i}_"): value
            for name, value in arrays.items()
            if name.startswith(f"prim{i}_")
        }
        yield cost, lengths, tuple(reference["target"].tolist()), reference


@pytest.mark.parametrize("path", golden_cases("norton_metrics*.npz"))
def test_golden_norton_metrics_prim_padding(path):
    for cost, lengths, target, reference in primitives(path):
        np.testing.assert_array_equal(compat.dtw_pad(cost, target, *lengths), reference["dtw_pad"])
        np.testing.assert_array_equal(compat.otam_pad(cost, target, *lengths), reference["otam_pad"])


@pytest.mark.parametrize("path", golden_cases("norton_metrics*.npz"))
def test_golden_norton_metrics_prim_cumulative_costs(path):
    for cost, lengths, target, reference in primitives(path):
        dtw = compat.dtw_eval_cum_dist(compat.dtw_pad(cost, target, *lengths))
        otam = compat.otam_eval_cum_dist(compat.otam_pad(cost, target, *lengths))
        np.testing.assert_allclose(dtw, reference["dtw_cum"], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(otam, reference["otam_cum"], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(
            compat.dtw_eval_cum_dist(cost), reference["dtw_cum_unpadded"], rtol=1e-5, atol=1e-5
        )


def test_a_block_that_fills_the_target_loses_its_last_row():
    cost = torch.tensor([[1.0, 1.0], [5.0, 7.0]])
    padded = compat.dtw_pad(cost, (2, 2), torch.tensor(2), torch.tensor(2))
    assert padded.tolist() == [[1.0, 1.0], [0.0, 0.0]]


def test_compiled_recurrences_have_the_bits_of_the_loops(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    cost = torch.randn(40, 9, 8, generator=generator)
    lengths = (
        torch.randint(1, 10, (40,), generator=generator),
        torch.randint(1, 9, (40,), generator=generator),
    )
    found = []
    for backend in "torch", "numba":
        monkeypatch.setenv("MMPT_BACKEND", backend)
        found.append(
            [
                compat.dtw_eval_cum_dist(compat.dtw_pad(cost, (9, 8), *lengths)),
                compat.otam_eval_cum_dist(compat.otam_pad(cost, (9, 8), *lengths)),
                compat.historic_dtw(cost, lengths, (10, 10)),
                compat.historic_otam(cost, lengths, (10, 10)),
            ]
        )
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
