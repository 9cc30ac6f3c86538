import pytest
import torch

from mmpt.ops.backend import choose


def test_auto_takes_the_first_backend_that_can():
    x = torch.zeros(2)
    assert choose("auto", x, triton=None, torch=None, numba=None) == "torch"
    assert choose("auto", x, triton=None, numba="too large", torch=None) == "torch"


def test_the_environment_overrides_where_it_can(monkeypatch):
    monkeypatch.setenv("MMPT_BACKEND", "numba")
    pytest.importorskip("numba")
    assert choose("auto", torch.zeros(2), torch=None, numba=None) == "numba"
    assert choose("auto", torch.zeros(2), torch=None, numba="too large") == "torch"
    monkeypatch.setenv("MMPT_BACKEND", "cuda")
    with pytest.raises(ValueError, match="MMPT_BACKEND=cuda names no backend"):
        choose("auto", torch.zeros(2), torch=None)


def test_a_backend_asked_for_by_name_says_why_it_cannot():
    with pytest.raises(ValueError, match="'numba' cannot be used: the hard minimum"):
        choose("numba", torch.zeros(2), torch=None, numba="the hard minimum is torch's")
    with pytest.raises(ValueError, match="'jax' is unknown here. Use one of auto, torch"):
        choose("jax", torch.zeros(2), torch=None)
    with pytest.raises(ValueError, match="it works on the CPU, not on meta"):
        choose("numba", torch.zeros(2, device="meta"), torch=None, numba=None)
