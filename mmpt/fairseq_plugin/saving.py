"""Checkpoints that are written while training goes on.

A save holds training up for as long as it takes to copy the state; one thread then writes, verifies and
renames the file, and removes those that are no longer kept. The next save waits for it.

With `job.sharded_saves` every process copies and writes its share of the large tensors; see
`mmpt.checkpoints.shards`.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from fairseq import checkpoint_utils
from fairseq.utils import apply_to_sample

from mmpt.checkpoints import shards
from mmpt.fairseq_plugin import checkpoint_files

logger = logging.getLogger(__name__)

_fairseq_save_checkpoint = checkpoint_utils.save_checkpoint


class Writer:
    """One piece of work beside training at a time; its error is raised in training."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, work: Callable[[threading.Event], object]) -> None:
        """Begin `work(copied)` once the work before it is done; return when it has set `copied`, or ended.

        Raises:
            Exception: what ended the work before it, or this one before its copy was made.
        """
        self.wait()
        copied = threading.Event()
        device = torch.cuda.current_device() if torch.cuda.is_initialized() else None

        def run() -> None:
            try:
                if device is not None:
                    torch.cuda.set_device(device)  # of this thread
                work(copied)
            except BaseException as error:  # raised in the thread that trains
                self._error = error
            finally:
                copied.set()

        self._thread = threading.Thread(target=run, name="checkpoint writer")
        self._thread.start()
        copied.wait()
        self.check()

    def check(self) -> None:
        """Raise what ended the last piece of work, once."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def wait(self) -> None:
        """Return when nothing is being written; raises as `check` does."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()


writer = Writer()


def save_checkpoint(cfg: Any, trainer: Any, epoch_itr: Any, val_loss: float | None) -> None:
    """fairseq's function of this name, of which only what reads the state keeps training waiting.

    Raises:
        OSError: this checkpoint or the one before it could not be written.
    """
    first, in_parts = trainer.should_save_checkpoint_on_current_rank, trainer.task.config.job.sharded_saves
    if cfg.no_save or not first:
        _fairseq_save_checkpoint(cfg, trainer, epoch_itr, val_loss)
    if cfg.no_save or not (first or in_parts):
        return
    start = time.perf_counter()
    writer.wait()
    waited = time.perf_counter() - start
    team = Team(trainer) if in_parts else None

    # fairseq reads everything before it calls `save_checkpoint` of the trainer, and only files after it
    def work(copied: threading.Event) -> None:
        if team is not None and not first:
            team.take_part(copied)
            return
        _fairseq_save_checkpoint(cfg, _Saver(trainer, copied, team), epoch_itr, val_loss)
        if team is not None and not copied.is_set():
            team.agree(None)
        checkpoint_files.remove_unused_shards(Path(cfg.save_dir))

    writer.start(work)
    logger.info(
        "saving update %d held training up for %.3f s, %.3f s of it for the save before",
        trainer.get_num_updates(),
        time.perf_counter() - start,
        waited,
    )


class _Saver:
    """A trainer whose state may change as soon as its copy is made."""

    def __init__(self, trainer: Any, copied: threading.Event, team: Team | None):
        self._trainer = trainer
        self._copied = copied
        self._team = team

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trainer, name)

    def save_checkpoint(self, filename: str, extra_state: dict[str, Any]) -> str:
        """The trainer's method of this name."""
        state = self._trainer.state_dict()
        state["extra_state"].update(extra_state)
        if self._team is None:
            state = copy_of(state)
            self._copied.set()
        else:
            folder = shards.new_folder(Path(filename))
            self._team.agree(folder)
            state = self._team.write(state, folder, self._copied)
        checkpoint_files.save(state, filename)
        return os.path.abspath(filename)


class Team:
    """All processes, each of which writes a share of a checkpoint's large tensors; the first one, which
    decides, writes the rest."""

    def __init__(self, trainer: Any):
        self._trainer = trainer
        self._group = _group_of_writers() if dist.is_initialized() else None

    def agree(self, folder: Path | None) -> Path | None:
        """Where the first process puts the shards of this checkpoint; None: it saves none."""
        said = [folder]
        if self._group is not None:
            dist.broadcast_object_list(said, src=0, group=self._group)
        return said[0]

    def take_part(self, copied: threading.Event) -> None:
        """In all processes but the first."""
        folder = self.agree(None)
        if folder is not None:
            self.write(self._trainer.state_dict(), folder, copied)

    def write(self, state: dict[str, Any], folder: Path, copied: threading.Event) -> dict[str, Any]:
        """Write this process's share; the rest of the state, which makes the checkpoint whole."""
        rank, ranks = (self._group.rank(), self._group.size()) if self._group is not None else (0, 1)
        # each process has buffers of its own, such as the statistics of BatchNorm: the first one's are stored
        buffers = {buffer.data_ptr() for buffer in self._trainer.model.buffers()}
        rest, large = shards.split(state, lambda tensor: tensor.data_ptr() not in buffers)
        mine = copy_of(shards.share(large, rank, ranks))
        rest = copy_of(rest) if rank == 0 else {}
        copied.set()
        with checkpoint_files.explained(folder):
            about = shards.write(mine, folder, self._group)
        return rest | {shards.KEY: about}


@functools.cache
def _group_of_writers() -> dist.ProcessGroup:
    """All processes, in a group of their own: training's collectives go on beside those of a save."""
    return dist.new_group(backend="gloo")


def copy_of(state: dict[str, Any]) -> dict[str, Any]:
    """The state with tensors of its own, on the CPU; half precision becomes float32, as fairseq stores it.

    Tensors that are one (tied weights) stay one.
    """
    copies: dict[tuple, torch.Tensor] = {}

    def copy(tensor: torch.Tensor) -> torch.Tensor:
        key = (tensor.data_ptr(), tensor.device, tensor.dtype, tensor.shape, tensor.stride())
        if key not in copies or tensor.numel() == 0:
            half = tensor.dtype in (torch.float16, torch.bfloat16)
            dtype = torch.float32 if half else tensor.dtype
            copies[key] = tensor.detach().to("cpu", dtype, copy=True)
        return copies[key]

    return apply_to_sample(copy, state)
