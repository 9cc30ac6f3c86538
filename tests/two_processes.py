"""Runs a function in two gloo processes, for tests of what talks to other ranks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

WORLD = 2


def run_on_two_ranks(function: Callable[[int, Path], None], folder: Path) -> None:
    """Calls `function(rank, folder)` in two processes with a process group; its exceptions reach the
    caller."""
    mp.spawn(_enter, args=(function, folder), nprocs=WORLD)


def _enter(rank: int, function: Callable[[int, Path], None], folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=WORLD)
    try:
        function(rank, folder)
        dist.barrier()
    finally:
        dist.destroy_process_group()
