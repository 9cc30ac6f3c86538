import pytest
import torch

from mmpt.ops.alignment import drop_dtw, dtw, hard_otam, otam, soft_dtw
from tests.ops.kernels import DEVICE, KERNELS

pytestmark = KERNELS


def matrices(count, rows, cols, seed=0):
    """Costs, some negative, with NaN and infinity beyond the lengths, the first as long as they go."""
    torch.manual_seed(seed)
    cost = 2 * torch.rand(count, rows, cols) - 0.3
    lengths = torch.randint(1, rows + 1, (count,)), torch.randint(1, cols + 1, (count,))
    lengths[0][0], lengths[1][0] = rows, cols
    for matrix, n_rows, n_cols in zip(cost, *lengths, strict=True):
        matrix[n_rows:], matrix[:, n_cols:] = float("nan"), float("inf")
    return cost, lengths


def compare(function, *tensors, lengths=None, **options):
    """Values and gradients of the kernels, and of float64 torch."""

    def run(kind, device, backend):
        given = [x.to(device, kind).requires_grad_() for x in tensors]
        span = None if lengths is None else tuple(x.to(device) for x in lengths)
        value = function(*given, lengths=span, backend=backend, **options)
        return [value.detach(), *torch.autograd.grad(value.sum(), given)]

    found, exact = run(torch.float32, DEVICE, "triton"), run(torch.float64, "cpu", "torch")
    return [(x.cpu().double(), y) for x, y in zip(found, exact, strict=True)]


def assert_close(pairs):
    (value, exact), *gradients = pairs
    assert ((value - exact).abs() <= 2e-6 * exact.abs().clamp(min=1)).all()
    for found, wanted in gradients:
        assert (found - wanted).norm() <= 5e-6 * wanted.norm()


@pytest.mark.parametrize(("count", "rows", "cols"), [(9, 5, 4), (1, 34, 20)], ids=["shared warp", "long"])
@pytest.mark.parametrize("function", [soft_dtw, otam])
def test_soft_alignments_of_the_kernels_are_those_of_float64(function, count, rows, cols):
    cost, lengths = matrices(count, rows, cols)
    assert_close(compare(function, cost, lengths=lengths, smoothing=0.1))


def test_otam_of_the_kernels_takes_both_directions():
    cost, lengths = matrices(3, 4, 6)
    assert_close(compare(otam, cost, lengths=lengths, smoothing=0.05, both=True))


@pytest.mark.parametrize("function", [dtw, hard_otam])
def test_hard_alignments_of_the_kernels_break_ties_as_torch_does(function):
    cost, lengths = matrices(6, 5, 7)
    for found, exact in compare(function, (4 * cost).round() / 4, lengths=lengths):
        assert torch.equal(found, exact)


@pytest.mark.parametrize("smoothing", [0.1, 0.0])
def test_drop_dtw_of_the_kernels_has_both_gradients(smoothing):
    cost, lengths = matrices(5, 4, 9)
    drop = torch.rand(5, 9) / 2
    assert_close(compare(drop_dtw, cost, drop, lengths=lengths, smoothing=smoothing))


def test_a_matrix_that_no_path_crosses_is_infinitely_far_and_passes_nothing():
    cost = torch.rand(2, 4, 4)
    cost[0, 1] = float("inf")
    (value, exact), (gradient, wanted) = compare(soft_dtw, cost, smoothing=0.1)
    assert torch.equal(value[0], exact[0]) and value[0].isinf()
    assert torch.isfinite(gradient).all() and (gradient[1] - wanted[1]).abs().max() < 1e-6


def test_steep_and_huge_costs_stay_exact():
    cost, lengths = matrices(3, 6, 6)
    assert_close(compare(soft_dtw, 1e6 * cost.nan_to_num(0, 0), lengths=lengths, smoothing=0.1))


def test_more_rows_than_a_warp_can_hold_are_refused_by_name():
    with pytest.raises(ValueError, match="aligns at most 256 rows, not 257"):
        soft_dtw(torch.zeros(1, 257, 3, device=DEVICE), backend="triton")
    with pytest.raises(ValueError, match="aligns at most 256 rows, not 300"):
        otam(torch.zeros(1, 3, 300, device=DEVICE), both=True, backend="triton")
