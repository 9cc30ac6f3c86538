"""AdamW in groups, as fairseq drives it."""

from argparse import Namespace

import pytest
import torch
from torch import nn

import mmpt.fairseq_plugin  # noqa: F401
from mmpt.fairseq_plugin.optimizers import DecoupledAdamW, GroupedAdamW
from mmpt.models.groups import set_groups
from tests.conftest import golden_cases, load_golden
from tests.golden_modules import assert_equal_up_to_rounding

SETTINGS = {"adam_betas": (0.9, 0.98), "adam_eps": 1e-6, "weight_decay": 0.01, "lr": [0.1]}


@pytest.mark.parametrize("case", golden_cases("release_optim*.npz"))
def test_golden_release_optim_steps(case):
    golden = load_golden(case)
    p, q = (nn.Parameter(torch.from_numpy(golden[f"adamw.{name}0"]).clone()) for name in "pq")
    groups = [{"params": [p], "lr": 0.02}, {"params": [q], "lr": 0.01, "weight_decay": 0.0}]
    optimizer = DecoupledAdamW(groups, 0.0, (0.9, 0.98), 1e-6, 0.01)
    for step, ratio in enumerate(golden["adamw.lr_ratio"]):
        for group, rate in zip(optimizer.param_groups, (0.02, 0.01), strict=True):
            group["lr"] = rate * ratio
        p.grad, q.grad = (torch.from_numpy(golden[f"adamw.grad_{name}"][step]) for name in "pq")
        optimizer.step()
        assert_equal_up_to_rounding(p, golden["adamw.p"][step])
        assert_equal_up_to_rounding(q, golden["adamw.q"][step])


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = nn.ModuleDict({"head": nn.Linear(2, 2), "body": nn.Linear(2, 2)})
    set_groups(model, {"head": 0.4}, ["bias"])
    return model


def test_groups_keep_their_share_of_the_rate(model):
    optimizer = GroupedAdamW(Namespace(**SETTINGS), model.parameters())
    optimizer.set_lr(0.05)
    found = {(round(g["lr"], 9), g["weight_decay"]): len(g["params"]) for g in optimizer.param_groups}
    assert found == {(0.2, 0.01): 1, (0.2, 0.0): 1, (0.05, 0.01): 1, (0.05, 0.0): 1}
    assert optimizer.get_lr() == pytest.approx(0.05)


def test_a_run_goes_on_with_its_own_rates_and_the_moments_of_the_checkpoint(model):
    first = GroupedAdamW(Namespace(**SETTINGS), model.parameters())
    model["head"].weight.grad = torch.ones(2, 2)
    first.step()
    second = GroupedAdamW(Namespace(**{**SETTINGS, "lr": [0.2]}), model.parameters())
    second.load_state_dict(first.state_dict(), second.optimizer_config)
    assert second.optimizer.state[model["head"].weight]["step"] == 1
    assert {round(g["lr"], 9) for g in second.param_groups} == {0.4, 0.2}
    assert {g["weight_decay"] for g in second.param_groups} == {0.01, 0.0}
