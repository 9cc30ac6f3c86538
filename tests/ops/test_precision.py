import pytest
import torch

from mmpt.ops.precision import autocast_off, full_precision, product, resolved


def factors(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(40, 70, generator=generator).to(dtype), torch.randn(30, 70, generator=generator).to(
        dtype
    )


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("strided", [True, False])
def test_product_is_exact_with_and_without_onednn(enabled, strided, monkeypatch):
    a, b = factors()
    if strided:
        a, b = a.T.contiguous().T, b.T.contiguous().T
    monkeypatch.setattr("torch.backends.mkldnn.is_available", lambda: enabled)
    torch.testing.assert_close(product(a, b), (a.double() @ b.double().T).float())


def test_product_keeps_float64():
    a, b = factors(torch.float64)
    assert torch.equal(product(a, b, precision="bf16", rounded_result=True), a @ b.T)


@pytest.mark.parametrize("rounded_result", [True, False])
def test_bf16_products_are_close_and_leave_the_global_setting_alone(rounded_result):
    a, b = factors()
    before = torch.backends.mkldnn.matmul.fp32_precision
    result = product(a, b, "bf16", rounded_result)
    assert torch.backends.mkldnn.matmul.fp32_precision == before
    assert (result - a @ b.T).norm() < 5e-3 * (a @ b.T).norm()
    assert rounded_result or result.dtype == torch.float32


def test_autocast_is_off_inside_and_devices_without_it_are_left_alone():
    a, b = factors()
    with torch.autocast("cpu", dtype=torch.bfloat16), autocast_off(a):
        assert (a @ b.T).dtype == torch.float32
    with autocast_off(a.to("meta")):
        pass


def test_half_precision_becomes_float32_and_the_rest_stays():
    assert full_precision(torch.ones(1, dtype=torch.bfloat16)).dtype == torch.float32
    x = torch.ones(1, dtype=torch.float64)
    assert full_precision(x) is x


@pytest.mark.parametrize(("native", "wanted"), [(True, "bf16"), (False, "float32")])
def test_auto_rounds_factors_that_are_rounded_already_where_the_hardware_gains_by_it(
    monkeypatch, native, wanted
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native})
    half, single = torch.zeros(2, dtype=torch.bfloat16), torch.zeros(2)
    assert resolved("auto", half, half) == wanted
    assert resolved("auto", half, single) == resolved("auto", single, single) == "float32"
    assert resolved("tf32", half, half) == "tf32"


def test_auto_rounds_what_autocast_would_round_also_in_a_loss_that_switches_it_off(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    single, double = torch.zeros(2), torch.zeros(2, dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        assert resolved("auto", single, single) == "bf16"
        with autocast_off(single), autocast_off(single):
            assert not torch.is_autocast_enabled("cpu")
            assert resolved("auto", single, single) == "bf16"
            assert resolved("auto", double, double) == "float32"
    with autocast_off(single):
        assert resolved("auto", single, single) == "float32"
