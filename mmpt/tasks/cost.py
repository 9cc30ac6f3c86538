"""What an update costs, counted without doing it: on tensors that have shapes and no values.

Counted are the multiplications and additions of matrix products, convolutions and attention, as
`torch.utils.flop_counter` knows them: those of the torch form of an operator, padding included unless
`model.packed` leaves it out.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmpt.config import Config
from mmpt.models import build_model
from mmpt.ops.distributed import supposing
from mmpt.tasks.task import Task

HALF = ("fp16", "bf16", "memory_efficient_fp16", "memory_efficient_bf16", "amp")


@dataclass(frozen=True)
class StepCost:
    """Of forward and backward of a batch on one process.

    Attributes:
        clips: rows of the batch.
        operations: multiplications and additions.
        bytes: the most that is held at once of inputs, activations and their gradients.
    """

    clips: int
    operations: int
    bytes: int


def half_precision(config: Config) -> bool:
    """Whether a run multiplies factors of half precision."""
    return any(config.fairseq.get("common", {}).get(key) for key in HALF)


def shapes_of(sample: Mapping[str, Any], dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """A batch without its values; floating point numbers in `dtype`."""
    return {
        name: value.to("meta", dtype if value.is_floating_point() else value.dtype)
        if isinstance(value, Tensor)
        else value
        for name, value in sample.items()
    }


def model_without_values(task: Task, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The model of a task, to count with: no weights are read, no memory is taken."""
    config = task.config
    blank = dataclasses.replace(config.model.without_weights(), compile=False)
    with torch.device("meta"):
        model = build_model(dataclasses.replace(config, model=blank)).to(dtype).train()
    task.leave_padding_out(model)
    return model


def step_cost(task: Task, model: nn.Module, batch: Mapping[str, Any], ranks: int = 1) -> StepCost:
    """What one process does for a batch.

    Args:
        task: with its loss.
        model: of `model_without_values`.
        batch: of `shapes_of`.
        ranks: processes that train together.

    Raises:
        NotImplementedError, RuntimeError: model or loss reads a value, which such tensors do not have.
    """
    assert task.loss is not None
    from torch.utils.flop_counter import FlopCounterMode  # imports Triton where there is one

    counter, held = FlopCounterMode(display=False), _Held()
    with supposing(ranks if ranks > 1 else 0), counter, held:
        rows = task.flatten(batch)
        outputs = task.forward(model, rows)
        extra = {"clips_per_video": task.clips_per_video, "num_updates": task.num_updates}
        loss = task.loss(**rows | extra | outputs)
        trained = [p for p in model.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(loss, trained, allow_unused=True)
    own = sum(g.numel() * g.element_size() for g in gradients if g is not None)
    return StepCost(rows_of(rows), counter.get_total_flops(), held.peak - own)


def rows_of(batch: Mapping[str, Any]) -> int:
    """Clips of a flattened batch."""
    return next(len(value) for value in batch.values() if isinstance(value, Tensor) and value.dim())


class _Held(TorchDispatchMode):
    """Bytes of all tensors made within it that are still alive, and their highest sum."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for x in tree_leaves(made):
            if isinstance(x, Tensor):
                self._add(x.untyped_storage())
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self.alive:
            self.alive[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.now -= self.alive.pop(key)
