"""What an update costs, on tensors without values."""

import pytest
import torch
from torch import nn

from mmpt.ops.distributed import all_gather, supposing, world_size
from mmpt.tasks.cost import shapes_of, step_cost


class Parts:
    """A task with one linear layer: 2 N D^2 operations forward and twice that backward."""

    clips_per_video, num_updates = None, 0

    def flatten(self, batch):
        return batch

    def forward(self, model, batch):
        return {"out": model(batch["x"])}

    def loss(self, out, **batch):
        return all_gather(out).square().sum()


def cost(rows, ranks=1, width=64):
    model = nn.Linear(width, width, bias=False, device="meta")
    return step_cost(Parts(), model, shapes_of({"x": torch.zeros(rows, width)}), ranks)


def test_operations_are_those_of_the_products():
    found = cost(10)
    assert found.clips == 10
    assert found.operations == 2 * 2 * 10 * 64 * 64  # inputs need no gradient


def test_bytes_grow_with_rows_and_not_with_weights():
    assert cost(1000).bytes == pytest.approx(10 * cost(100).bytes, rel=1e-3)
    assert cost(100, width=128).bytes == pytest.approx(2 * cost(100).bytes, rel=1e-3)


def test_rows_of_other_ranks_are_counted():
    assert cost(100, ranks=4).bytes > 2 * cost(100).bytes


def test_supposed_ranks_hold_copies_and_end_with_the_block():
    x = torch.ones(2, 3, requires_grad=True)
    with supposing(3):
        assert world_size() == 3 and all_gather(x).shape == (6, 3)
    assert world_size() == 1 and all_gather(x) is x


def test_a_model_that_reads_values_is_told_by_an_error():
    task = Parts()
    task.forward = lambda model, batch: {"out": model(batch["x"][batch["x"].sum(1) > 0])}
    with pytest.raises((RuntimeError, NotImplementedError)):
        step_cost(task, nn.Linear(4, 4, device="meta"), shapes_of({"x": torch.zeros(3, 4)}))
