import torch

from mmpt.ops.normalize import unit_rows, unit_rows_once


def rows() -> torch.Tensor:
    """Three unit rows, two of length 7 and one of zeros."""
    x = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return (x / x.norm(dim=1, keepdim=True) * torch.tensor([1.0, 1, 1, 7, 7, 0])[:, None]).requires_grad_()


def test_rows_have_unit_length_but_zero_rows_stay_zero_and_get_no_gradient():
    x = rows()
    y = unit_rows(x)
    torch.testing.assert_close(y.norm(dim=1), torch.tensor([1.0] * 5 + [0.0], dtype=torch.float64))
    y.sum().backward()
    assert x.grad.isfinite().all() and not x.grad[5].any()


def test_gradient_of_unit_rows_is_that_of_finite_differences():
    assert torch.autograd.gradcheck(unit_rows, (rows().detach()[:5].requires_grad_(),))


def test_unit_rows_once_leaves_unit_rows_and_their_gradients_alone():
    x = rows()
    y = unit_rows_once(x)
    assert torch.equal(y[:3], x[:3])
    torch.testing.assert_close(y.norm(dim=1), torch.tensor([1.0] * 5 + [0.0], dtype=torch.float64))
    y.sum().backward()
    assert (x.grad[:3] == 1).all() and x.grad.isfinite().all() and (x.grad[3] * x[3]).sum().abs() < 1e-12


def test_half_precision_rows_are_normalized_in_float32():
    assert (
        unit_rows(torch.ones(1, 3).half()).dtype
        == unit_rows_once(torch.ones(1, 3).half()).dtype
        == torch.float32
    )
