import pytest
import torch

from mmpt.ops.distributed import all_gather, all_gather_items
from tests.two_processes import WORLD, run_on_two_ranks


def test_one_process_gets_its_own_tensor_back():
    x = torch.randn(3, 2, requires_grad=True)
    assert all_gather(x) is x


def test_without_gradient_the_result_is_a_constant():
    assert not all_gather(torch.randn(3, 2, requires_grad=True), with_grad=False).requires_grad


def _check_gathering(rank, folder):
    generator = torch.Generator().manual_seed(5)
    joined = torch.randn(WORLD, 3, 2, generator=generator, dtype=torch.float64)
    weight = torch.randn(
        WORLD, WORLD * 3, 2, generator=generator, dtype=torch.float64
    )  # each rank weighs the rows differently
    mine = joined[rank].clone().requires_grad_()
    gathered = all_gather(mine)
    assert torch.equal(gathered, joined.flatten(0, 1))
    (gathered * weight[rank]).sum().backward()
    torch.testing.assert_close(mine.grad, weight.sum(0)[rank * 3 : rank * 3 + 3])
    assert not all_gather(mine, with_grad=False).requires_grad
    flags = all_gather(torch.tensor([rank == 0, True]))
    assert flags.dtype == torch.bool and flags.tolist() == [True, True, False, True]
    assert all_gather(mine.detach().half()).dtype == torch.float16
    assert torch.equal(all_gather(mine.detach().T.contiguous().T), joined.flatten(0, 1))
    assert all_gather_items(list("abcde")[rank::WORLD]) == list("abcde")
    for odd in (torch.zeros(2 + rank, 2), torch.zeros(2, *[1] * rank)):
        with pytest.raises(ValueError, match=r"same shape on every rank.*rank 1"):
            all_gather(odd)


def test_two_ranks_gather_rows_gradients_flags_and_refuse_different_shapes(tmp_path):
    run_on_two_ranks(_check_gathering, tmp_path)
