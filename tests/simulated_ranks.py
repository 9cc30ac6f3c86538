"""Several ranks as threads of one process, for golden values of many ranks; the real thing is in
`tests.two_processes`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch


class SimulatedRanks:
    """Stands in for `mmpt.ops.distributed`. Gathered tensors stay connected, so that gradients of every
    rank's loss reach all ranks."""

    def __init__(self, monkeypatch, world: int, modules: list):
        self.world, self.barrier, self.slots, self.local = (
            world,
            threading.Barrier(world),
            [None] * world,
            threading.local(),
        )
        for module in modules:
            for name in ("all_gather", "rank", "world_size"):
                monkeypatch.setattr(module, name, getattr(self, name), raising=False)

    def rank(self) -> int:
        return self.local.rank

    def world_size(self) -> int:
        return self.world

    def all_gather(self, x: torch.Tensor, with_grad: bool = True) -> torch.Tensor:
        self.slots[self.rank()] = x
        self.barrier.wait()
        joined = torch.cat(self.slots)
        self.barrier.wait()
        return joined if with_grad else joined.detach()

    def run(self, function: Callable[[int], object]) -> list:
        """`function(rank)` on all ranks."""

        def enter(rank: int) -> object:
            self.local.rank = rank
            try:
                return function(rank)
            except BaseException:
                self.barrier.abort()
                raise

        with ThreadPoolExecutor(self.world) as pool:
            return list(pool.map(enter, range(self.world)))
