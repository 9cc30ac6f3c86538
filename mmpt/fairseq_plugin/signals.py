"""Stopping on request: SIGTERM or SIGUSR1 save a checkpoint after the update in hand and end training with
exit code 85.

Clusters announce the end of a job's time, or its preemption, by a signal. A job that ends with 85 has its
state in `checkpoint_last.pt`; the same command line goes on from there.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import logging
import multiprocessing.util
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch.distributed as dist
from fairseq import checkpoint_utils
from omegaconf import DictConfig
from torch.distributed.elastic.multiprocessing.errors import get_error_handler

from mmpt.fairseq_plugin import phases, replay
from mmpt.fairseq_plugin.saving import writer
from mmpt.launch.heartbeat import HEART, SAVE
from mmpt.launch.lock import JobLock
from mmpt.ops.distributed import sum_on_host

logger = logging.getLogger(__name__)

# ERESTART, "should be restarted": what batch systems take for it too; no shell makes it of a signal, unlike
# 143
STOPPED = 85
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
ENTRY = "fairseq_cli.train"
PR_SET_PDEATHSIG = 1  # linux/prctl.h

_fairseq: dict[str, Callable] = {}


class _State:
    """What this process was asked for, and what all processes have agreed on."""

    asked: signal.Signals | None = None
    stopping = False


def install() -> None:
    """Take part in fairseq's training loop, where that is loaded; calling it again changes nothing."""
    # importing it would set up logging, which is for training alone to decide
    train: Any = sys.modules.get(ENTRY)
    if train is not None and not _fairseq:
        _fairseq.update(main=train.main, train=train.train, validate_and_save=train.validate_and_save)
        train.main, train.train, train.validate_and_save = main, train_epoch, validate_and_save


def main(cfg: DictConfig) -> None:
    """fairseq's `main` for one process; an error is recorded for the launcher, which shows the first one of
    all ranks.

    Raises:
        SystemExit: with code 85, after a signal and with the checkpoint on disk.
    """
    importlib.import_module(ENTRY)  # a process that fairseq spawned comes here first
    install()
    listen()
    rank = cfg.distributed_training.distributed_rank
    try:
        with (
            phases.beating(rank),
            JobLock(cfg.checkpoint.save_dir) if rank == 0 else contextlib.nullcontext(),
        ):
            try:
                _fairseq["main"](cfg)
            finally:
                with HEART.during(SAVE):
                    writer.wait()
    except Exception as error:
        told = _in_words(error)
        get_error_handler().record_exception(told)
        if told is not error:
            raise told from error
        raise
    # what comes now changes nothing; Python's way out restores the default, and a finished run would look
    # killed
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if _State.stopping:
        if dist.is_initialized():
            dist.barrier()  # the first rank may still be writing; torchrun ends all others when one has ended
        sys.exit(STOPPED)


def _in_words(error: Exception) -> Exception:
    """What torch says of a data loading process that died, with the likely reasons."""
    found = re.search(
        r"DataLoader worker \(pid(?:\(s\))? [\d, ]+\) (?:is killed by signal: (\w+[\w ]*)|exited)", str(error)
    )
    if found is None and not _from_worker(error):
        return error
    cause = "a file that it read became shorter meanwhile: `mmpt data verify` names it"
    if found is None or found[1] != "Bus error":
        cause = "out of memory? Lower fairseq.dataset.num_workers, and see the kernel log"
    return RuntimeError(
        f"a data loading process died ({found[0] if found else error}): {cause}. The same command goes on."
    )


def _from_worker(error: Exception) -> bool:
    """Whether a connection to a data loading process broke off, which shows before torch notices its end."""
    frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    loading = any(name.endswith("torch/utils/data/dataloader.py") for name in frames)
    return isinstance(error, OSError | EOFError) and loading and "multiprocessing" in frames[-1]


def listen() -> None:
    """Let SIGTERM and SIGUSR1 ask for a stop instead of ending the process."""
    for number in SIGNALS:
        signal.signal(number, _ask)
    if "TORCHELASTIC_RUN_ID" in os.environ and sys.platform == "linux":
        # a torchrun killed without warning would leave its ranks behind, writing checkpoints beside those of
        # the next run
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # clusters signal the whole process tree, and torch's data loading processes would die of SIGTERM before
    # the update is done
    os.register_at_fork(after_in_child=_leave_to_parent)
    multiprocessing.util.Finalize(None, _end_children, exitpriority=0)


def _leave_to_parent() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _end_children() -> None:
    """At exit: Python would send SIGTERM to data loading processes that are still there, and wait for
    them."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler takes their end for an error
    for child in multiprocessing.active_children():
        child.kill()


def _ask(number: int, frame: FrameType | None) -> None:
    _State.asked = signal.Signals(number)


def train_epoch(cfg: DictConfig, trainer: Any, task: Any, epoch_itr: Any) -> tuple:
    """fairseq's training of an epoch; a run that is done and is started again stays as it is, where fairseq
    would train one update more."""
    if task.is_done:
        logger.info(
            "all %d updates are done; raise max_update, or the patience that ended the run, to train on",
            trainer.get_num_updates(),
        )
        return [None], True
    return _fairseq["train"](cfg, trainer, task, epoch_itr)


def validate_and_save(
    cfg: DictConfig, trainer: Any, task: Any, epoch_itr: Any, valid_subsets: list[str], end_of_epoch: bool
) -> tuple:
    """What fairseq does after every update; on request, save first (time is short), and stop."""
    if replay.running:
        return replay.running[0].after_update(cfg, trainer, epoch_itr)
    writer.check()
    asked = anyone_asked(trainer)
    if asked:
        checkpoint_utils.save_checkpoint(cfg.checkpoint, trainer, epoch_itr, None)
    valid_losses, finished = _fairseq["validate_and_save"](
        cfg, trainer, task, epoch_itr, valid_subsets, end_of_epoch
    )
    if asked and not finished:
        _State.stopping = True
        writer.wait()
        where = f"{cfg.checkpoint.save_dir}/checkpoint_last.pt"
        if cfg.checkpoint.no_save or cfg.checkpoint.no_last_checkpoints:
            where = "nowhere: fairseq.checkpoint.no_save or no_last_checkpoints is set"
        name = _State.asked.name if _State.asked else "a signal to another rank"
        logger.info(
            "%s: stopping after update %d, saved %s; exit code %d",
            name,
            trainer.get_num_updates(),
            where,
            STOPPED,
        )
    return valid_losses, finished or asked


def anyone_asked(trainer: Any) -> bool:
    """Whether any rank was signalled, the same answer on all ranks, and which rank is the slowest; at the
    price of one small sum per update."""
    asked, world = _State.asked is not None, trainer.data_parallel_world_size
    if world == 1:
        return asked
    own = [float(asked), *phases.STRAGGLERS.slots(trainer.data_parallel_rank, world)]
    summed = sum_on_host(own)
    phases.STRAGGLERS.hear(summed[1:])
    return summed[0] > 0
