"""Training that repeats a stretch of a run and writes down what makes its last update; and what every run
logs so that this can be checked."""

from __future__ import annotations

import json
import math
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from fairseq import checkpoint_utils

from mmpt.fairseq_plugin import metrics_file
from mmpt.fairseq_plugin.saving import writer
from mmpt.launch.run_folder import RunFolder
from mmpt.ops.distributed import rank
from mmpt.ops.fingerprint import fingerprint
from mmpt.tasks.shares import item_shares

INDEX = "item_index"  # entry of a batch: (B,) indices of its items
# A hash takes 2 to 4 % of an update of a small batch on the CPU, so every fifth update has one at most.
HASH_STRIDE = 5
running: list[Recorder] = []  # of this process, in a replay


class Recorder:
    """Logs the hash of the gradient; in a replay also what the last update is made of.

    Args:
        args: of fairseq; `replay_until` is the last update of a replay, None in training; `replay_record` the
            folder for what is found; `replay_goes_on` says that another job goes on after it, which needs its
            state and not its items; `replay_threads` are those of the run, which sums on the CPU depend on.
    """

    def __init__(self, args: Namespace):
        self.until: int | None = args.replay_until
        self.record = None if args.replay_record is None else Path(args.replay_record)
        self.goes_on: bool = args.replay_goes_on
        # the updates that are logged, or of these every second, third, ...
        self.interval: int = args.log_interval * math.ceil(HASH_STRIDE / args.log_interval)
        self.on_cpu: bool = args.cpu or not torch.cuda.is_available()
        self.metrics = Path(args.save_dir) / metrics_file.NAME
        self.processes: int = args.distributed_world_size
        self.started = False
        self.batches: list[dict[str, Any]] = []
        if self.until is not None:
            running[:] = [self]
            torch.set_num_threads(args.replay_threads)

    def start(self, update: int, folder: RunFolder) -> None:
        """Called with each batch: the first one is where this job begins."""
        if not self.started and rank() == 0 and self.until is None:
            job = {"processes": self.processes, "threads": torch.get_num_threads(), "cpu": self.on_cpu}
            line = {"tag": "start", "update": update, **job, "changes": folder.changes()}
            metrics_file.write(self.metrics, line)
        self.started = True

    def wants(self, update: int) -> bool:
        """Is this the update to write down?"""
        return update == self.until and not self.goes_on

    def batch(self, task: Any, model: Any, sample: Mapping[str, Any], indices: list[int]) -> None:
        """Before a batch of the last update passes: which items it has and what they do to the gradient."""
        entry: dict[str, Any] = {"rank": rank(), "batch": len(self.batches)}
        try:
            entry["items"] = [asdict(share) for share in item_shares(task, model, sample, indices)]
        except (
            FloatingPointError
        ) as error:  # of the loss: the update that is asked for is the one that failed
            entry["items"] = [
                {"item": index, "video": None, "loss": math.nan, "norm": math.nan, "finite": True}
                for index in indices
            ]
            entry["error"] = str(error)
        self.batches.append(entry)
        self._write(f"rank{rank()}.json", self.batches)

    def terms(self, log: Mapping[str, Any]) -> None:
        """After it has passed: its loss and the terms."""
        self.batches[-1]["loss"] = float(log["loss"])
        self.batches[-1]["terms"] = {
            name.removeprefix("term_"): float(value)
            for name, value in log.items()
            if name.startswith("term_")
        }
        self._write(f"rank{rank()}.json", self.batches)

    def gradient(self, optimizer: Any, update: int) -> None:
        """Before the step of an update: the gradient of all ranks, scaled and clipped."""
        if rank() != 0 or (self.until is None and update % self.interval):
            return
        value = fingerprint(parameter.grad for parameter in optimizer.params)
        metrics_file.of_update = {"update": update, "grad_hash": value, "processes": self.processes}
        if self.record is not None:
            with open(self.record / "hashes.jsonl", "a") as file:
                file.write(json.dumps({"update": update, "grad_hash": value}) + "\n")

    def after_update(self, cfg: Any, trainer: Any, epoch_itr: Any) -> tuple[list[None], bool]:
        """Stands for validation and saving in a replay."""
        ends = trainer.get_num_updates() >= self.until
        if ends and self.goes_on:
            checkpoint_utils.save_checkpoint(cfg.checkpoint, trainer, epoch_itr, None)
            writer.wait()
        return [None], ends

    def _write(self, name: str, content: Any) -> None:
        assert self.record is not None  # this is a replay
        (self.record / name).write_text(json.dumps(content))
