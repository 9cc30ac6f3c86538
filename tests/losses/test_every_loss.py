"""What every registered loss promises: finite values and gradients, float32 maths, errors at start."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmpt.certify.batches import BUILT_IN, SPECIAL, Maker
from mmpt.config.fields import keys_of
from mmpt.losses import build_loss
from mmpt.registry import LOSSES

CASES = [("duplicates", 4, torch.float32), ("masked", 4, torch.float32), ("random", 1, torch.float32)]
CASES += [("extreme", 4, dtype) for dtype in (torch.float16, torch.bfloat16)]


def loss_and_batch(name, maker):
    keys, make = SPECIAL.get(name, (lambda n: {}, None))
    loss = build_loss({"loss_cls": name, **keys(maker.n)})
    return loss, make(maker) if make else maker.usual(loss)


@pytest.mark.parametrize(("case", "n", "dtype"), CASES, ids=str)
@pytest.mark.parametrize("name", BUILT_IN)
def test_value_and_gradients_are_finite_and_in_full_precision(name, case, n, dtype):
    maker = Maker(case, n, dtype)
    loss, batch = loss_and_batch(name, maker)
    value = loss(**batch)
    assert value.dtype == torch.float32 and value.shape == () and torch.isfinite(value)
    value.backward()
    gradients = [x.grad for x in maker.leaves if x.grad is not None]
    assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_model_that_returns_something_else_is_refused_before_training(name):
    model = nn.Identity()
    model.returns = frozenset({"something_else"})
    loss, _ = loss_and_batch(name, Maker("random", 4, torch.float32))
    with pytest.raises(ValueError, match="does not return|needs a model with a matching head"):
        loss.check_model(model)


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_model_that_returns_all_it_declares_is_accepted(name):
    loss, batch = loss_and_batch(name, Maker("random", 4, torch.float32))
    model = nn.Identity()
    model.returns = frozenset(batch)
    loss.check_model(model)
    declared = loss.from_model if loss.from_model is not None else loss.reads
    assert set(declared) <= set(loss.reads)


@pytest.mark.parametrize("name", BUILT_IN)
def test_what_is_known_of_a_loss_without_importing_it_is_what_it_is(name):
    known, cls = LOSSES.describe(name), LOSSES.get(name)
    assert set(keys_of(known.config)) == set(keys_of(cls.Config))
    assert (known.cls.family, known.cls.formula, known.cls.paper) == (cls.family, cls.formula, cls.paper)
