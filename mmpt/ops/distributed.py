"""All-gather over processes, with or without gradient: the one way to talk to other ranks.

Shapes: N rows on this rank, R ranks; gathered tensors have R*N rows in rank order.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_alone = False
_NOTHING = object()
_supposed = 0


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Within it this process is taken for the only one: it holds the rows of all ranks already."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


@contextlib.contextmanager
def supposing(ranks: int) -> Iterator[None]:
    """Within it this process is taken for the first of so many, whose rows are copies of its own: what a
    step of them costs can then be counted by one."""
    global _supposed
    before, _supposed = _supposed, ranks
    try:
        yield
    finally:
        _supposed = before


def _has_others() -> bool:
    return not _alone and dist.is_available() and dist.is_initialized()


def world_size() -> int:
    """Number of processes; 1 without a process group."""
    return _supposed or (dist.get_world_size() if _has_others() else 1)


def rank() -> int:
    """Number of this process; 0 without a process group."""
    return dist.get_rank() if _has_others() and not _supposed else 0


def all_gather(x: Tensor, with_grad: bool = True) -> Tensor:
    """Rows of all ranks, in rank order; `x` itself when there is one process.

    The backward pass sums over ranks what each rank's loss says about the rows of this rank. When every rank
    computes the same loss on the gathered batch and gradients of the parameters are then averaged over ranks,
    as data-parallel training does, the result is the gradient of one process on the joined batch.

    Args:
        x: (N, ...) of any dtype, the same shape on every rank.
        with_grad: false treats the rows of all ranks, this one included, as constants.

    Returns:
        (R*N, ...)

    Raises:
        ValueError: the ranks hold different shapes (on every rank, so that none waits for the others).
    """
    if world_size() == 1:
        return x if with_grad else x.detach()
    if _supposed:
        return (x if with_grad else x.detach()).repeat(_supposed, *[1] * (x.dim() - 1))
    _check_same_shape(x)
    return _AllGather.apply(x) if with_grad and x.requires_grad else _gather(x.detach())


def all_gather_items(mine: list[Any]) -> list[Any]:
    """Items that were dealt out in turns, item i to rank i modulo R, in their order again on every rank."""
    if world_size() == 1:
        return mine
    dealt: list[list[Any]] = [[] for _ in range(world_size())]
    dist.all_gather_object(dealt, mine)
    turns = itertools.zip_longest(*dealt, fillvalue=_NOTHING)
    return [item for turn in turns for item in turn if item is not _NOTHING]


def _gather(x: Tensor) -> Tensor:
    wire = x.to(torch.uint8) if x.dtype == torch.bool else x  # gloo and nccl disagree about bool
    parts = [torch.empty_like(wire, memory_format=torch.contiguous_format) for _ in range(world_size())]
    dist.all_gather(parts, wire.contiguous())
    return torch.cat(parts).to(x.dtype)


def _check_same_shape(x: Tensor) -> None:
    """One small collective. Ranks may differ in the number of dimensions, so the shape travels in a fixed
    width."""
    if x.dim() == 0 or x.dim() > 7:
        raise ValueError(f"all_gather needs a tensor with 1 to 7 dimensions, got shape {tuple(x.shape)}.")
    shape = torch.tensor([*x.shape, *[-1] * (7 - x.dim())], device=x.device)
    shapes = _gather(shape[None]).tolist()
    if any(other != shapes[0] for other in shapes):
        found = ", ".join(f"rank {r}: {tuple(n for n in s if n >= 0)}" for r, s in enumerate(shapes))
        raise ValueError(
            f"all_gather needs the same shape on every rank, got {found}. Give every rank the same number "
            "of clips of the same padded "
            "length (drop the last, smaller batch) or set loss.global_negatives: false."
        )


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.rows = x.shape[0]
        return _gather(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        # Every rank's loss saw these rows; each holds one share of their gradient.
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        return grad[rank() * ctx.rows : (rank() + 1) * ctx.rows]
