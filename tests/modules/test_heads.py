from __future__ import annotations

import numpy as np
import pytest
import torch

from mmpt.modules import ProjectionHead
from tests.conftest import golden_cases, load_golden


def head_of(golden, dropout=0.3):
    state = {
        name.removeprefix("mlp."): torch.tensor(x) for name, x in golden.items() if name.startswith("mlp.")
    }
    head = ProjectionHead(int(golden["n_input"]), int(golden["n_classes"]), int(golden["n_hidden"]), dropout)
    head.load_state_dict(state)
    return head.to(torch.tensor(golden["mlp_in"]).dtype)


@pytest.mark.parametrize("path", golden_cases("gdt_heads*.npz"))
def test_golden_gdt_heads_in_evaluation(path):
    golden = load_golden(path)
    x = head_of(golden).eval()(torch.tensor(golden["mlp_in"]))
    np.testing.assert_allclose(x.detach(), golden["mlp_out_eval"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        torch.nn.functional.normalize(x).detach(), golden["mlp_out_eval_norm"], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("path", golden_cases("gdt_heads*.npz"))
def test_golden_gdt_heads_in_training_update_the_statistics(path):
    golden = load_golden(path)
    head = head_of(golden, dropout=0.0).train()
    np.testing.assert_allclose(
        head(torch.tensor(golden["mlp_in"])).detach(), golden["mlp_out_train_p0"], rtol=1e-5, atol=1e-6
    )
    norm = head.get_submodule("block_forward.4")
    np.testing.assert_allclose(norm.running_mean, golden["bn_running_mean_after"], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(norm.running_var, golden["bn_running_var_after"], rtol=1e-5, atol=1e-7)


def test_maps_are_flattened():
    head = ProjectionHead(8, 3, hidden=4).eval()
    x = torch.randn(5, 8)
    assert torch.equal(head(x.view(5, 8, 1, 1, 1)), head(x))
