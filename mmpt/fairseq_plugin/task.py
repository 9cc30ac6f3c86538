"""mmpt's task as fairseq's `mmtask`: builds data, model and loss from a project file and feeds fairseq's
iterators."""

from __future__ import annotations

import logging
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from typing import Any

from fairseq.data.iterators import EpochBatchIterator
from fairseq.logging import metrics
from fairseq.tasks import LegacyFairseqTask, register_task

from mmpt.config import load_config
from mmpt.config.rundir import to_dict
from mmpt.fairseq_plugin import patches as compat
from mmpt.fairseq_plugin.dataset import FairseqMMDataset
from mmpt.fairseq_plugin.phases import STRAGGLERS
from mmpt.launch.heartbeat import DATA, HEART
from mmpt.launch.run_folder import RunFolder
from mmpt.tasks import build_task

logger = logging.getLogger(__name__)


@register_task("mmtask")
class FairseqMMTask(LegacyFairseqTask):
    """`fairseq-train project.yaml --task mmtask ...`."""

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """The project file is the positional argument; `--set` overrides its keys."""
        parser.add_argument("taskconfig", metavar="YAML", help="project file")
        parser.add_argument(
            "--set",
            dest="overrides",
            action="append",
            default=[],
            metavar="SECTION.KEY=VALUE",
            help="overrides a key of the project file",
        )
        parser.add_argument(
            "--accept-changes",
            default="",
            metavar="KEY,...",
            help="keys of the project file that may differ from those the run folder was trained with",
        )

    def __init__(self, args: Namespace):
        super().__init__(args)
        compat.check_run(args)
        self.config = load_config(args.taskconfig, [*args.overrides, *_precision(args)])
        HEART.timeout_s, HEART.start_timeout_s = self.config.job.timeout, self.config.job.start_timeout
        self.folder, self.accepted = RunFolder(self.config), args.accept_changes.split(",")
        if args.distributed_rank == 0:
            self.folder.open(self.accepted, args.distributed_world_size)
        self.mmtask = build_task(self.config)
        self.model = None
        self.is_done = False  # set when a checkpoint is loaded that a run ended with
        self.data_wait = DataWait()
        self.zero_shot_values: dict[str, float] = {}

    def load_dataset(self, split: str, **kwargs: Any) -> None:
        """Build `split` (train, valid, test) unless it is there already."""
        if split in self.datasets:
            return
        path_key = {"train": "train_path", "valid": "val_path", "test": "test_path"}.get(split)
        if path_key is None:
            raise ValueError(
                f"unknown split type {split!r}; known: train, valid, test. Check "
                "fairseq.dataset.valid_subset."
            )
        if getattr(self.config.dataset, path_key) is None:
            raise ValueError(
                f"{self.config.source}: dataset.{path_key} is missing, but fairseq asks for the {split} "
                "split. "
                + (
                    "Give a list, or set fairseq.dataset.disable_validation: true."
                    if split == "valid"
                    else "Give a list."
                )
            )
        dataset = self.mmtask.build_dataset(split)
        if len(dataset) == 0:
            raise ValueError(
                f"{self.config.source}: the {split} split of "
                f"dataset.{path_key}={getattr(self.config.dataset, path_key)} has no items."
            )
        logger.info("%s: %d items", split, len(dataset))
        if split == "train" and self.args.distributed_rank == 0:
            self.folder.check_items(len(dataset), self.accepted)
        dataset.seed = self.args.seed
        self.datasets[split] = FairseqMMDataset(dataset, equal_batches=split == "train")

    def build_model(self, args: Namespace, from_checkpoint: bool = False) -> Any:
        """Keeps the model at hand: composing batches by retrieval needs it."""
        self.model = super().build_model(args, from_checkpoint)
        self.model.mmmodel.register_forward_pre_hook(lambda *_: HEART.progress())
        return self.model

    def get_batch_iterator(
        self, dataset: FairseqMMDataset, *args: Any, epoch: int = 1, **kwargs: Any
    ) -> EpochBatchIterator:
        """Let the task compose the epoch's items first; never reuse a cached iterator, whose batch list may
        be stale."""
        if (
            dataset is self.datasets.get("train") and not self.is_done
        ):  # composing groups of near neighbours may take long
            with HEART.during("composing batches", slow=True):
                self.mmtask.begin_epoch(dataset.dataset, epoch, self.model)
        kwargs["disable_iterator_cache"] = True
        if kwargs.get("num_workers") == 0:
            # fairseq would draw batches in a thread beside training; once that thread ends, training's own
            # OpenMP threads wait for its pool at every step, and the last ten updates of an epoch take many
            # times as long
            kwargs["data_buffer_size"] = 0
        iterator = super().get_batch_iterator(dataset, *args, epoch=epoch, **kwargs)
        if dataset is self.datasets.get("train"):
            self.data_wait.watch(iterator)
        return iterator

    def begin_valid_epoch(self, epoch: int, model: Any) -> None:
        """Run the zero-shot test once per validation."""
        with HEART.during("zero-shot test", slow=True):
            self.zero_shot_values = self.mmtask.zero_shot(self.model.mmmodel)

    def train_step(
        self,
        sample: Any,
        model: Any,
        criterion: Any,
        optimizer: Any,
        update_num: int,
        ignore_grad: bool = False,
    ) -> Any:
        """Tells the losses which update this is."""
        self.mmtask.num_updates = update_num
        return super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad)

    def get_checkpoint_dict(self) -> dict[str, Any]:
        """fairseq stores this in every checkpoint."""
        state = {**self.mmtask.resume_state(), "processes": self.args.distributed_world_size}
        state["early_stop"] = {name: float(value) for name, value in compat.early_stop_memory().items()}
        return {"mmtask": state, "config": to_dict(self.config)}

    def resume(self, extra_state: Mapping[str, Any]) -> None:
        """Called before the first batches are drawn, with what a checkpoint stored; only the middle of an
        epoch matters."""
        position, state = extra_state["train_iterator"], extra_state.get("mmtask", {})
        done, now = position["iterations_in_epoch"], self.args.distributed_world_size
        if done > 0:
            before = state.get("processes", now)
            if before != now:
                # batches are dealt out in turns; those of a turn that the new number of processes would only
                # partly finish are drawn again
                position["iterations_in_epoch"] = done * before // now
                logger.info(
                    "epoch %d: %d batches were done by %d processes, %d go on",
                    position["epoch"],
                    done * before,
                    before,
                    now,
                )
            self.mmtask.resume(state, position["epoch"])

    def reduce_metrics(self, logging_outputs: list, criterion: Any) -> None:
        """Adds the share of time spent waiting for data, or in validation the numbers of
        `eval.valid_project`."""
        super().reduce_metrics(logging_outputs, criterion)
        if not criterion.training:
            for name, value in self.zero_shot_values.items():
                metrics.log_scalar(f"zero_shot_{name}", value, weight=0, priority=200, round=4)
            return
        for name, value in STRAGGLERS.last.items():
            metrics.log_scalar(name, value, priority=185, round=4)
        share = self.data_wait.share()
        if share is not None:
            metrics.log_scalar("data_wait", share, priority=180, round=3)

    def max_positions(self) -> None:
        """Items are never filtered by length."""
        return None

    @property
    def source_dictionary(self) -> None:
        """Tokens come from the tokenizer, not from a fairseq dictionary."""
        return None

    @property
    def target_dictionary(self) -> None:
        """See `source_dictionary`."""
        return None


def _precision(args: Namespace) -> list[str]:
    """The precision that fairseq was told of, which the launcher's --cpu takes out of what the file says."""
    said = load_config(args.taskconfig, args.overrides).trainer
    flags = {flag: bool(getattr(args, flag)) for flag in ("fp16", "bf16")}
    return [f"fairseq.common.{flag}={on}".lower() for flag, on in flags.items() if on != getattr(said, flag)]


class DataWait:
    """Share of wall time that training spends waiting for its next batch."""

    def __init__(self) -> None:
        self.waited = 0.0
        self.since = time.perf_counter()

    def watch(self, iterator: EpochBatchIterator) -> None:
        """Time every batch that `iterator` will hand out."""
        start_epoch = iterator.next_epoch_itr

        def timed_epoch(*args: Any, **kwargs: Any) -> Any:
            counting = start_epoch(*args, **kwargs)
            counting._itr = self._timed(counting._itr)
            return counting

        iterator.next_epoch_itr = timed_epoch

    def _timed(self, batches: Iterator) -> Iterator:
        while True:
            HEART.train()
            start = time.perf_counter()
            try:
                with HEART.during(DATA):
                    batch = next(batches)
            except StopIteration:
                return
            self.waited += time.perf_counter() - start
            yield batch

    def share(self) -> float | None:
        """Waiting / wall time since the last call; None when no time has passed."""
        now = time.perf_counter()
        elapsed, waited = now - self.since, self.waited
        self.since, self.waited = now, 0.0
        return waited / elapsed if elapsed > 0 else None
