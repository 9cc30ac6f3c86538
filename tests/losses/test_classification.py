import pytest
import torch

from mmpt.losses import BCE, L1, MSE, ArgmaxCrossEntropy, CrossEntropy, DummyK400Loss, DummyLoss, SmoothL1
from tests.conftest import load_golden

GOLDEN_PAIRS = [
    (CrossEntropy, "ce", "ce_loss"),
    (DummyLoss, "ce", "ce_loss"),
    (BCE, "bce", "bce_loss"),
    (ArgmaxCrossEntropy, "argmax_ce", "argmax_ce_loss"),
    (MSE, "argmax_ce", "mse_loss"),
    (L1, "argmax_ce", "l1_loss"),
    (SmoothL1, "argmax_ce", "smooth_l1_loss"),
]


@pytest.mark.parametrize(("loss", "inputs", "value"), GOLDEN_PAIRS)
def test_golden_norton_other_losses_on_logits_and_targets(loss, inputs, value):
    golden = load_golden("norton_other_losses.npz")
    got = loss()(
        logits=torch.tensor(golden[f"{inputs}_logits"]), targets=torch.tensor(golden[f"{inputs}_targets"])
    )
    assert got.item() == pytest.approx(float(golden[value]), rel=1e-10)


def test_a_batch_without_labels_costs_nothing():
    logits = torch.randn(2, 3, 5, requires_grad=True)
    loss = CrossEntropy()(logits=logits, targets=torch.full((2, 3), -100))
    loss.backward()
    assert loss.item() == 0 and not logits.grad.any()


def test_integer_targets_serve_bce():
    assert BCE()(
        logits=torch.zeros(3, 2), targets=torch.ones(1, 3, 2, dtype=torch.long)
    ).item() == pytest.approx(0.6931472)


def test_random_labels_follow_the_seed():
    logits = torch.randn(8, 400)
    first, again, other = (DummyK400Loss({"seed": seed})(logits=logits) for seed in (1, 1, 2))
    assert first == again and first != other


@pytest.mark.parametrize("loss", [CrossEntropy, BCE, MSE, L1, SmoothL1])
def test_half_precision_logits_are_computed_in_float32(loss):
    logits = torch.full((4, 3), 6e4, dtype=torch.float16)
    targets = (
        torch.zeros(4, dtype=torch.long) if loss is CrossEntropy else torch.zeros(4, 3, dtype=torch.float16)
    )
    value = loss()(logits=logits, targets=targets)
    assert value.dtype == torch.float32 and torch.isfinite(value)
