import math

import pytest
import torch

from mmpt.ops.logit_scale import INITIAL_LOGIT_SCALE, LARGEST_LOGIT_SCALE, inverse_temperature

LIKE = torch.ones(1, dtype=torch.float64)


def test_without_a_learned_scale_the_temperature_is_the_given_one():
    assert inverse_temperature(None, LIKE, 0.25).item() == 4
    assert inverse_temperature(None, LIKE.half()).dtype == torch.float32


@pytest.mark.parametrize(("value", "held"), [(9.0, LARGEST_LOGIT_SCALE), (-3.0, 0.0), (2.0, 2.0)])
def test_a_learned_scale_is_held_within_bounds_but_can_return(value, held):
    scale = torch.tensor(value, dtype=torch.float64, requires_grad=True)
    factor = inverse_temperature(scale, LIKE, least=0.0)
    factor.backward()
    assert factor.item() == pytest.approx(math.exp(held)) == scale.grad.item()


def test_a_learned_scale_replaces_the_temperature():
    scale = torch.tensor(INITIAL_LOGIT_SCALE, dtype=torch.float64)
    assert inverse_temperature(scale, LIKE, 0.5).item() == pytest.approx(1 / 0.07)
