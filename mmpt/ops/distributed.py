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
_on_host: tuple[Any, Any] = (None, None)  # all ranks, and a group of them for numbers of the host


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


def sum_on_host(values: list[float]) -> list[float]:
    """Sums over ranks of numbers that the host knows; no rank waits for its device."""
    return _reduced_on_host(values, dist.ReduceOp.SUM, torch.float64).tolist() if _has_others() else values


def largest_of_ranks(number: int) -> int:
    """The highest of a number that the host knows of each rank; no rank waits for its device."""
    if world_size() == 1 or _supposed:
        return number
    return int(_reduced_on_host([number], dist.ReduceOp.MAX, torch.int64))


def _reduced_on_host(values: list, how: Any, dtype: torch.dtype) -> Tensor:
    summed = torch.tensor(values, dtype=dtype)
    dist.all_reduce(summed, how, group=_host_group())
    return summed


def _host_group() -> Any:
    """All ranks, to exchange numbers of the host: NCCL has only those of the device."""
    global _on_host
    if dist.get_backend() == "gloo":
        return None
    if _on_host[0] is not dist.group.WORLD:
        _on_host = dist.group.WORLD, dist.new_group(backend="gloo")
    return _on_host[1]


def _gather(x: Tensor) -> Tensor:
    wire = x.to(torch.uint8) if x.dtype == torch.bool else x  # gloo and nccl disagree about bool
    joined = wire.new_empty(world_size() * len(wire), *wire.shape[1:])
    _named("all_gather_single", "all_gather_into_tensor")(joined, wire.contiguous())
    return joined.to(x.dtype)


def _named(now: str, before: str) -> Any:
    """A collective by its name since torch 2.13, or by that before."""
    return getattr(dist, now, None) or getattr(dist, before)


def _check_same_shape(x: Tensor) -> None:
    """One small collective of the host. Ranks may differ in the number of dimensions, so the shape travels in
    a fixed width."""
    if x.dim() == 0 or x.dim() > 7:
        raise ValueError(f"all_gather needs a tensor with 1 to 7 dimensions, got shape {tuple(x.shape)}.")
    shape = [*x.shape, *[-1] * (7 - x.dim())]
    lowest = _reduced_on_host([*shape, *(-n for n in shape)], dist.ReduceOp.MIN, torch.int64).view(2, 7)
    if torch.equal(lowest[0], -lowest[1]):
        return
    shapes: list[Any] = [None] * world_size()
    dist.all_gather_object(shapes, tuple(x.shape), group=_host_group())
    found = ", ".join(f"rank {r}: {shape}" for r, shape in enumerate(shapes))
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
        own = grad.new_empty(ctx.rows, *grad.shape[1:])
        _named("reduce_scatter_single", "reduce_scatter_tensor")(own, grad.contiguous())
        return own
