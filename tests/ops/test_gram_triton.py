import pytest
import torch

from mmpt.ops.gram.contrast import volume_cross_entropy
from tests.ops.kernels import DEVICE, KERNELS
from tests.ops.vectors import tuples, unit

pytestmark = KERNELS
MASK = torch.tensor([[1, 1], [0, 1], [0, 0], [1, 0], *[[1, 1]] * 15, [0, 1]]).bool()
ANCHORS = torch.arange(20) % 7 != 4


def run(inputs, backend, scale=9.0, **options):
    """Both losses, and gradients of the scale and of all vectors."""
    wide = backend == "torch"
    leaves = [(x if wide else x.float().to(DEVICE)).detach().requires_grad_() for x in inputs]
    scale = torch.tensor(scale, dtype=leaves[0].dtype, device=leaves[0].device, requires_grad=True)
    options = {k: x.to(scale.device) if isinstance(x, torch.Tensor) else x for k, x in options.items()}
    values = volume_cross_entropy(leaves[0], leaves[1:], scale, backend=backend, **options)
    (values[0] + 2 * values[1]).backward()
    return [x.detach().cpu().double() for x in (*values, scale.grad, *(x.grad for x in leaves))]


def assert_exact(inputs, value=2e-6, gradient=5e-6, **options):
    inputs = [x.float().double() for x in inputs]
    found, exact = run(inputs, "triton", **options), run(inputs, "torch", **options)
    for number, (x, y) in enumerate(zip(found, exact, strict=True)):
        least = 0.1 if number == 2 else 0.0  # the scale's gradient is a small difference of mean volumes
        assert (x - y).norm() <= (value if number < 2 else gradient) * y.norm().clamp(min=least)


@pytest.mark.parametrize(
    ("score", "dim_norm", "masked"),
    [
        *(("volume", False, False), ("volume", True, True), ("distance", False, True)),
        *(("logvolume", False, False), ("logvolume", True, True)),
    ],
)
def test_values_and_gradients_of_the_kernels_are_those_of_float64(score, dim_norm, masked):
    masks = {"mask": MASK, "anchor_mask": ANCHORS} if masked else {}
    inputs = [unit(20, 19, seed=1), *tuples(2, n=20, d=19)]
    assert_exact(inputs, score=score, dim_norm=dim_norm, **masks)


@pytest.mark.parametrize("k", [1, 4])
def test_kernels_take_any_number_of_modalities_and_pairs_in_the_middle_of_a_rectangle(k):
    inputs = [unit(21, 12, seed=1), *tuples(k, n=19, d=12)]
    assert_exact(inputs, first_row=3, first_column=2, pairs=16)


def test_backward_of_the_kernels_goes_by_chunks_of_anchors(monkeypatch):
    from mmpt.ops.gram import _triton

    monkeypatch.setattr(_triton, "SCRATCH", 16 * 2 * 33)  # one block of anchors at a time
    assert_exact([unit(33, 8, seed=1), *tuples(2, n=33, d=8)])


@pytest.mark.parametrize("score", ["volume", "logvolume"])
def test_kernels_are_finite_for_duplicates_zeros_and_extreme_scales(score):
    x = unit(1, 8, dtype=torch.float32).repeat(5, 1)
    for case in ([x, x, x], [x, torch.zeros_like(x), x], [torch.zeros_like(x), x, x]):
        found = run(case, "triton", scale=100.0, score=score)
        assert all(x.isfinite().all() for x in found)


def test_with_nothing_present_the_loss_of_the_kernels_and_its_gradients_are_zero():
    found = run([unit(4, 8), *tuples(2, n=4, d=8)], "triton", mask=torch.zeros(4, 2, dtype=torch.bool))
    assert all((x == 0).all() for x in found)


@pytest.mark.parametrize("masked", [False, True])
def test_the_kernels_keep_their_precision_where_all_items_are_close(masked):
    masks = {"mask": MASK, "anchor_mask": ANCHORS} if masked else {}
    common = unit(1, 19, seed=5)
    inputs = [
        torch.nn.functional.normalize(common + 0.1 * x)
        for x in (unit(20, 19, seed=1), *tuples(2, n=20, d=19))
    ]
    assert_exact(inputs, **masks)


def test_matched_pairs_of_the_kernels_keep_their_precision():
    x = unit(6, 16, seed=1)
    near = x + 3e-4 * unit(6, 16, seed=2)
    assert_exact([near, x], scale=100.0)


def test_the_kernels_of_the_contrast_leave_float64_to_torch():
    inputs = [unit(4, 8).to(DEVICE), *(x.to(DEVICE) for x in tuples(1, n=4, d=8))]
    with pytest.raises(ValueError, match="the input is float64"):
        volume_cross_entropy(inputs[0], inputs[1:], 1.0, backend="triton")
