import pytest
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from mmpt.ops.distributed import all_gather, all_gather_items, largest_of_ranks, sum_on_host
from tests.device_waits import NoCopies, NoLiterals
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
    assert sum_on_host([rank + 1.0, 0.5]) == [3.0, 1.0] and largest_of_ranks(5 - rank) == 5
    for odd in (torch.zeros(2 + rank, 2), torch.zeros(2, *[1] * rank)):
        with pytest.raises(ValueError, match=r"same shape on every rank.*rank 1"):
            all_gather(odd)


def test_two_ranks_gather_rows_gradients_flags_and_refuse_different_shapes(tmp_path):
    run_on_two_ranks(_check_gathering, tmp_path)


@pytest.fixture
def ranks_of_a_gpu(monkeypatch):
    """Two ranks whose collectives do nothing, so that they run on the device without values."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    reduced = []
    monkeypatch.setattr(dist, "all_reduce", lambda x, how, group: reduced.append((x.device.type, group)))
    monkeypatch.setattr(dist, "new_group", lambda backend: backend)
    yield reduced
    dist.destroy_process_group()


def test_gathering_from_gpus_agrees_on_shapes_on_the_host_and_never_waits(ranks_of_a_gpu):
    x = torch.empty(3, 2, dtype=torch.bfloat16, device="meta", requires_grad=True)
    with NoCopies(), NoLiterals():
        joined = all_gather(x)
        joined.sum().backward()
    assert joined.shape == (6, 2) and x.grad.shape == (3, 2)
    assert joined.dtype == x.grad.dtype == torch.bfloat16  # what travels is no wider
    assert ranks_of_a_gpu == [("cpu", "gloo")]


def test_shapes_and_gradients_take_one_collective_each(ranks_of_a_gpu, monkeypatch):
    taken = []
    for now, before in (
        ("all_gather_single", "all_gather_into_tensor"),
        ("reduce_scatter_single", "reduce_scatter_tensor"),
    ):
        name = now if hasattr(dist, now) else before
        monkeypatch.setattr(dist, name, lambda *args, name=before: taken.append(name))
    all_gather(torch.zeros(3, 2, requires_grad=True)).sum().backward()
    assert taken == ["all_gather_into_tensor", "reduce_scatter_tensor"]
