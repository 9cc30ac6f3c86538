"""What a rank says of itself while it trains: its phase, for the launcher that listens, and the time it
waits, for the log of stragglers."""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from fairseq import checkpoint_utils, trainer

from mmpt.launch.heartbeat import (
    COLLECTIVE,
    DATA,
    FOLDER,
    FORWARD,
    HEART,
    SAVE,
    STOOD,
    VALIDATION,
    Beat,
    judge,
)

logger = logging.getLogger(__name__)

COLLECTIVES = (
    *("all_reduce", "all_gather", "all_gather_into_tensor", "all_gather_object", "all_to_all_single"),
    *("barrier", "broadcast", "broadcast_object_list", "reduce_scatter_tensor"),
    *("all_gather_single", "reduce_scatter_single"),  # since torch 2.13
)


def install(rank: int) -> None:
    """Begin to beat, and mark the phases of fairseq's training loop; for one run of this process."""
    # what all threads were doing goes to this rank's log when the launcher is about to end it
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    HEART.start(rank, os.environ.get(FOLDER), _end)
    for name in filter(functools.partial(hasattr, dist), COLLECTIVES):
        setattr(dist, name, _marked(getattr(dist, name), COLLECTIVE))
    trainer.Trainer.train_step = _counted(_marked(trainer.Trainer.train_step, FORWARD))
    trainer.Trainer.valid_step = _marked(trainer.Trainer.valid_step, VALIDATION)
    checkpoint_utils.save_checkpoint = _marked(checkpoint_utils.save_checkpoint, SAVE)


def _marked(function: Callable, phase: str) -> Callable:
    @functools.wraps(function)
    def marked(*args: Any, **kwargs: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            return function(*args, **kwargs)  # of a save beside training
        with HEART.during(phase):
            return function(*args, **kwargs)

    return marked


def _counted(train_step: Callable) -> Callable:
    @functools.wraps(train_step)
    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        HEART.update = self.get_num_updates()
        try:
            return train_step(self, *args, **kwargs)
        finally:
            HEART.update = self.get_num_updates()

    return counted


def _end(beat: Beat) -> None:
    """This process stands still and has no launcher that listens."""
    logger.critical("error: %s Exit code %d.", judge([beat]), STOOD)
    faulthandler.dump_traceback(all_threads=True)
    os._exit(STOOD)


class Stragglers:
    """Which rank the others wait for: data wait and own work per update, and highest memory, of all ranks,
    from one sum that is taken anyway."""

    def __init__(self) -> None:
        self.since: float | None = None  # the first call ends the start-up, which is no update
        self.peak_gib = 0.0  # highest memory so far, of this rank and of those that were heard
        self.last: dict[str, float] = {}

    def slots(self, rank: int, world: int) -> list[float]:
        """(3 * world) Seconds that this rank waited for data, and worked, since the last call, and the GiB of
        the highest memory; 0 for others."""
        now = time.perf_counter()
        data, waited = HEART.take_spent(DATA), HEART.take_spent(COLLECTIVE)
        slots = [0.0] * (3 * world)
        slots[3 * rank + 2] = self.peak_gib
        if self.since is not None:
            slots[3 * rank : 3 * rank + 2] = data, max(now - self.since - data - waited, 0.0)
        self.since = now
        return slots

    def hear(self, summed: list[float]) -> None:
        """Keep what all ranks said, `slots` summed over them."""
        data, work, memory = torch.tensor(summed, dtype=torch.float64).view(-1, 3).t()
        self.peak_gib = float(memory.max())
        total = data + work
        if not total.any():
            return
        slowest = int(total.argmax())
        self.last = {
            "slowest_rank": slowest,
            "slowest_data_s": float(data[slowest]),
            "data_s": float(data.mean()),
            "slowest_step_s": float(work[slowest]),
            "step_s": float(work.mean()),
        }


STRAGGLERS = Stragglers()


@contextlib.contextmanager
def beating(rank: int):
    """A run of this process, from its first beat to its last."""
    install(rank)
    try:
        yield
    finally:
        HEART.stop()
