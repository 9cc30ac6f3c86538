"""What training a project file would take, before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmpt.config import Config
from mmpt.config.load import as_config
from mmpt.registry import load_plugins
from mmpt.tasks import build_task
from mmpt.tasks.cost import StepCost, model_without_values, rows_of, shapes_of, step_cost
from mmpt.utils.columns import LENGTHS

GIB = 2**30
# bytes of a trained number beside the activations: weight, gradient and Adam's two moments; in half precision
# fairseq keeps a float32 copy of weight and gradient too, unless it is to save memory
TRAINED = {"float32": 16, "half": 20, "half, saving memory": 12}
LARGEST = 2**20  # clips


@dataclass(frozen=True)
class Estimate:
    """Of one process.

    Attributes:
        step: cost of a batch as configured.
        parameters: of the model.
        trained: of them.
        ranks: processes that train together.
        state_bytes: weights, gradients, optimizer.
        memory_gib: of a card.
        largest: clips of the largest batch that fits it; 0: not even the state does.
    """

    step: StepCost
    parameters: int
    trained: int
    ranks: int
    state_bytes: int
    memory_gib: float
    largest: int

    def text(self) -> str:
        """Lines to read."""
        most = f"{self.largest} clips" if self.largest else "none: weights and optimizer alone do not fit"
        lines = {
            "batch": f"{self.step.clips} clips a process, {self.ranks} process(es)",
            "parameters": f"{self.parameters / 1e6:.1f} million, {self.trained / 1e6:.1f} million trained",
            "operations": f"{self.step.operations / 1e12:.3g} TFLOP an update and process",
            "memory": f"{(self.state_bytes + self.step.bytes) / GIB:.2f} GiB a process: "
            f"{self.state_bytes / GIB:.2f} of weights, gradients and optimizer, "
            f"{self.step.bytes / GIB:.2f} of activations",
            "largest batch": f"{most} a process on a card of {self.memory_gib:g} GiB",
        }
        return "\n".join(f"{name:14}{line}" for name, line in lines.items())


def estimate(
    config: str | Path | Config | Mapping[str, Any],
    overrides: Iterable[str] = (),
    *,
    nproc: int = 1,
    memory_gib: float = 80.0,
) -> Estimate:
    """Memory and operations of an update, and the largest batch that fits a card.

    One batch of the training split is read, for its shapes. Weights are not; nothing is multiplied. What the
    allocator of a GPU loses between tensors, and what its libraries take, a few percent, is not in it.

    Args:
        config: a project file, or what is in one.
        overrides: `section.key=value` texts merged last.
        nproc: processes that train together.
        memory_gib: of a card.

    Raises:
        ConfigError: the file is wrong.
        FileNotFoundError: the training data is not there.
        ValueError: it has no loss, or its model reads values, which a count does not have.
    """
    config = as_config(config, overrides)
    load_plugins(config.plugins)
    task, trainer = build_task(config), config.trainer
    if task.loss is None:
        raise ValueError(f"{config.source}: loss.loss_cls is missing; there is no update to count.")
    dataset = task.build_dataset("train")
    items = range(min(trainer.batch_size or 1, len(dataset)))
    common = config.fairseq.get("common", {})
    saving = bool(common.get("memory_efficient_fp16") or common.get("memory_efficient_bf16"))
    half = saving or trainer.fp16 or trainer.bf16
    dtype = torch.float16 if half else torch.float32
    model = model_without_values(task, dtype)
    batch = shapes_of(dataset.collate([dataset[i] for i in items]), dtype)
    try:
        steps = [step_cost(task, model, _times(batch, factor), nproc) for factor in (1, 2, 3)]
    except (NotImplementedError, RuntimeError) as error:
        raise ValueError(
            f"{config.source}: {config.model.model_cls} or {type(task.loss).__name__} reads values while it "
            f"computes ({error}), so that its costs cannot be counted."
        ) from error
    numbers = [(p.numel(), p.requires_grad) for p in model.parameters()]
    trained = sum(n for n, learns in numbers if learns)
    each = TRAINED["half, saving memory" if saving else "half" if half else "float32"]
    gathered = trained * (2 if half else 4) if nproc > 1 else 0  # gradients on their way to other processes
    frozen = (sum(n for n, _ in numbers) - trained) * (2 if half else 4)
    state = trained * each + frozen + gathered
    largest = _largest(steps, memory_gib * GIB - state)
    return Estimate(steps[0], sum(n for n, _ in numbers), trained, nproc, state, memory_gib, largest)


def _times(batch: dict[str, Any], factor: int) -> dict[str, Any]:
    """A batch of so many times the rows."""
    rows = rows_of(batch)
    repeated = {
        name: value.repeat(factor, *[1] * (value.dim() - 1))
        if isinstance(value, Tensor) and value.dim() and len(value) == rows
        else value
        for name, value in batch.items()
    }
    lengths = {key: n * factor for key, n in batch.get(LENGTHS, {}).items()}
    return repeated | {LENGTHS: lengths}


def _largest(steps: list[StepCost], room: float) -> int:
    """Clips whose step takes no more bytes than there is room for; bytes grow as a + b n + c n^2."""
    first, second, third = (step.bytes for step in steps)
    n, square = steps[0].clips, (third - 2 * second + first) / 2

    def fits(clips: int) -> bool:
        t = clips / n - 1
        return first + t * (second - first - square) + t * t * square <= room

    low, high = 0, LARGEST
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
