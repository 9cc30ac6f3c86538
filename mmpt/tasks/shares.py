"""Which items of a batch its loss and its gradient come from.

Letters: B items, m videos of an item that is a group, K clips, N rows of the flattened batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmpt.config.fairseq_args import joins_ranks
from mmpt.ops.distributed import all_gather, alone, rank, world_size
from mmpt.tasks.task import Task


@dataclass(frozen=True)
class ItemShare:
    """What one video of a batch does to the loss and to the gradient.

    Attributes:
        item: index of its item in the training split.
        video: its id, where the batch says it.
        loss: by how much the loss of the batch (that of all ranks, where the loss joins them) would be
            smaller without the video; nan where that could not be taken.
        norm: of its part of the gradient; nan where that could not be taken.
        finite: false where its features hold NaN or infinity.
    """

    item: int
    video: str | None
    loss: float
    norm: float
    finite: bool


def item_shares(
    task: Task, model: nn.Module, sample: Mapping[str, Any], indices: list[int]
) -> list[ItemShare]:
    """What each video of a batch adds to its loss, and the norm of its part of the gradient.

    A video that does not fit, by its features or its captions, adds more to the loss than the others do: its
    clips miss their captions, and are near those of others.

    A row of the model's outputs depends on the row of its clip alone, so that the gradient of the parameters
    is the sum over videos of what arrives through their rows: J_i^T g_i, with g_i the gradient of the loss
    (with all its negatives) at the rows of video i, and J_i their Jacobian. One backward pass per video, of a
    single forward pass: dropout is the same for all of them.

    All ranks call it at once where the loss joins their clips. The random streams are left where they are
    found to be, gradients of parameters untouched.

    Args:
        task: with its loss.
        model: takes the flattened batch; without a data-parallel wrapper.
        sample: a collated batch.
        indices: (B,) of its items.
    """
    leading: tuple[int, ...] = sample["vmasks"].shape[:-1] if "vmasks" in sample else (len(indices),)
    per_item = leading[1] if len(leading) > 2 else 1  # an item is a group of m videos, or one video
    units = torch.arange(len(indices) * per_item)
    names = _names(sample.get("video_id"), len(units))
    owner = (
        units.view(-1, *([1] * max(len(leading) - 1, 0))) if per_item == 1 else units.view(-1, per_item, 1)
    )
    owner = task.flatten({**sample, "owner": owner.expand(leading)})["owner"]  # (N,)
    finite = _finite(task.flatten(sample), owner, len(units))
    losses = norms = [math.nan] * len(units)
    if _everywhere(all(finite), sample):
        devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
        with torch.random.fork_rng(devices):
            losses, norms = _measured(task, model, sample, owner, len(units))
    return [
        ItemShare(indices[unit // per_item], names[unit], losses[unit], norms[unit], finite[unit])
        for unit in range(len(units))
    ]


def _everywhere(holds: bool, sample: Mapping[str, Any]) -> bool:
    """Whether it holds on all ranks, which then go on together."""
    device = next(value.device for value in sample.values() if isinstance(value, Tensor))
    return bool(all_gather(torch.tensor([holds], device=device), with_grad=False).all())


def _measured(
    task: Task, model: nn.Module, sample: Mapping[str, Any], owner: Tensor, n_units: int
) -> tuple[list[float], list[float]]:
    """The losses and norms of all videos, from one forward pass."""
    batch = task.flatten(sample) | {"clips_per_video": task.clips_per_video, "num_updates": task.num_updates}
    outputs = model(**batch)
    assert task.loss is not None  # it trains
    made = {
        name: value
        for name, value in outputs.items()
        if isinstance(value, Tensor) and value.requires_grad and value.dim()
    }
    leaves = {name: value.detach().requires_grad_() for name, value in made.items()}
    loss = task.loss(**(batch | outputs | leaves))
    arriving = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    used = [
        (value, gradient)
        for value, gradient in zip(made.values(), arriving, strict=True)
        if gradient is not None
    ]
    # one row a clip, or a caption; rows that stand for pairs of clips belong to no video
    counts = {len(owner), len(batch["caps"]) if "caps" in batch else len(owner)}
    if not used or any(len(value) not in counts for value, _ in used):
        unknown = [math.nan] * n_units
        return unknown, unknown
    losses = _losses_without(task, batch | outputs, owner, n_units, float(loss.detach()), counts)
    return losses, _norms(used, [p for p in model.parameters() if p.requires_grad], owner, n_units)


@torch.no_grad()
def _losses_without(
    task: Task, batch: Mapping[str, Any], owner: Tensor, n_units: int, loss: float, counts: set[int]
) -> list[float]:
    """The loss of the batch less that of the batch without each video."""
    rows = {
        name: value
        for name, value in batch.items()
        if isinstance(value, Tensor) and value.dim() and len(value) in counts
    }
    assert task.loss is not None  # it trains
    first, everything, found = 0, len(owner), []
    if joins_ranks(task.config):  # the rows of other ranks stay
        rows = {name: all_gather(value, with_grad=False) for name, value in rows.items()}
        first, everything = rank() * len(owner), world_size() * len(owner)
    for unit in range(n_units):
        keep = torch.ones(everything, dtype=torch.bool)
        keep[first : first + len(owner)] = owner != unit
        if not keep.any():
            return [math.nan] * n_units
        rest = {
            name: value[keep.repeat_interleave(len(value) // everything).to(value.device)]
            for name, value in rows.items()
        }
        with alone():
            found.append(loss - float(task.loss(**{**batch, **rest})))
    return found


def _norms(
    used: list[tuple[Tensor, Tensor]], parameters: list[nn.Parameter], owner: Tensor, n_units: int
) -> list[float]:
    """Of the gradient of the parameters through the rows of each video.

    Args:
        used: outputs of the model that the loss reads, and its gradient at them.
        parameters: of the model.
        owner: (N,) video of each row.
        n_units: videos.
    """
    norms = []
    for unit in range(n_units):
        own = [gradient * _mask(owner == unit, gradient) for _, gradient in used]
        parts = torch.autograd.grad(
            [value for value, _ in used], parameters, own, retain_graph=True, allow_unused=True
        )
        squares = [part.double().square().sum() for part in parts if part is not None]
        norms.append(float(torch.stack(squares).sum().sqrt()))
    return norms


def _mask(rows: Tensor, like: Tensor) -> Tensor:
    """(N,) bool -> (C N, 1, ...) of the dtype and device of `like`, for outputs with C rows a clip."""
    rows = rows.repeat_interleave(len(like) // len(rows)).to(like.device, like.dtype)
    return rows.view(-1, *([1] * (like.dim() - 1)))


def _finite(batch: Mapping[str, Any], owner: Tensor, n_units: int) -> list[bool]:
    """Of each video: are all its numbers finite?"""
    bad = torch.zeros(n_units, dtype=torch.bool)
    for value in batch.values():
        if (
            isinstance(value, Tensor)
            and value.is_floating_point()
            and value.dim()
            and len(value) == len(owner)
        ):
            bad[owner[~value.isfinite().flatten(1).all(1).cpu()]] = True
    return (~bad).tolist()


def _names(video_id: Any, n_units: int) -> list[str | None]:
    """Ids as collated: one for each item, or a list of m for each group."""
    flat = []
    for entry in video_id if isinstance(video_id, (list, tuple)) else ():
        flat += entry if isinstance(entry, list) else [entry]
    # a clip is (video, start, end)
    names = (f"{n[0]} {'-'.join(map(str, n[1:]))}" if isinstance(n, tuple) else str(n) for n in flat)
    return [*names] if len(flat) == n_units else [None] * n_units
