from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmpt.modules import GramMatchHead, PairMatcher
from mmpt.modules.matching import bind_matcher
from tests.conftest import golden_cases, load_golden


@pytest.mark.parametrize("path", golden_cases("gram_match*.npz"))
def test_golden_gram_match_head(path):
    golden = load_golden(path)
    head = GramMatchHead(golden["x"].shape[1]).double()
    names = {name: name.replace(".", "_").replace("layernorm", "norm") for name in head.state_dict()}
    head.load_state_dict({name: torch.tensor(golden[f"head_{key}"]) for name, key in names.items()})
    x = torch.tensor(golden["x"], dtype=torch.float64, requires_grad=True)
    loss = F.cross_entropy(head(x), torch.tensor(golden["target"]).long())
    loss.backward()
    np.testing.assert_allclose(head(x).detach(), golden["logits"], atol=1e-10)
    np.testing.assert_allclose(head.score(x).detach(), golden["score"], atol=1e-10)
    np.testing.assert_allclose(x.grad, golden["grad_x"], atol=1e-10)
    assert loss.item() == pytest.approx(golden["loss"].item(), rel=1e-10)


class FirstToken(torch.nn.Module):
    def forward(self, ids, mask, condition, condition_mask):
        return condition[:, 0] * (ids * mask).sum(1, keepdim=True) * condition_mask.sum(1, keepdim=True)


def test_a_bound_matcher_pairs_texts_with_conditions_by_index():
    matcher = PairMatcher(FirstToken(), 4)
    ids, mask = torch.tensor([[1, 2], [3, 4]]), torch.tensor([[True, False], [True, True]])
    condition = torch.randn(2, 3, 4, requires_grad=True)
    match = matcher.bind(ids, mask, condition)
    expected = matcher.head(torch.stack([condition[1, 0] * 1 * 3, condition[0, 0] * 7 * 3]))
    torch.testing.assert_close(match(torch.tensor([0, 1]), torch.tensor([1, 0])), expected)
    match(torch.tensor([0]), torch.tensor([1])).sum().backward()
    assert condition.grad[1].abs().sum() > 0 and (condition.grad[0] == 0).all()


def test_pairs_are_scored_under_the_autocast_of_the_model():
    head = GramMatchHead(4)
    ids, condition = torch.ones(2, 3, dtype=torch.long), torch.randn(2, 5, 4)
    with torch.autocast("cpu", torch.bfloat16):
        match = bind_matcher(lambda *pair: head(pair[2].mean(1)), ids, ids, condition)
    with torch.autocast("cpu", enabled=False):
        assert match(torch.tensor([0, 1]), torch.tensor([1, 0])).dtype == torch.bfloat16
