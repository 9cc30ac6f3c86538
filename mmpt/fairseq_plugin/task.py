"""mmpt's task as fairseq's `mmtask`: builds data, model and loss from a project file and feeds fairseq's
iterators."""

from __future__ import annotations

import dataclasses
import logging
import time
from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from fairseq.data.iterators import EpochBatchIterator
from fairseq.logging import metrics
from fairseq.logging.meters import safe_round
from fairseq.tasks import LegacyFairseqTask, register_task

from mmpt.config import load_config
from mmpt.config.fairseq_args import Share, share
from mmpt.config.rundir import to_dict
from mmpt.datasets import DataPlan, MixedDataset
from mmpt.datasets.hand_over import send_as_stored, unpack
from mmpt.fairseq_plugin import patches as compat
from mmpt.fairseq_plugin.dataset import FairseqMMDataset
from mmpt.fairseq_plugin.phases import STRAGGLERS
from mmpt.fairseq_plugin.replay import INDEX, Recorder
from mmpt.fairseq_plugin.tensorboard import PlanPictures
from mmpt.fairseq_plugin.utilisation import Utilisation, memory_peak
from mmpt.launch.heartbeat import DATA, HEART
from mmpt.launch.run_folder import RunFolder
from mmpt.ops.distributed import rank
from mmpt.tasks import Place, build_task

logger = logging.getLogger(__name__)


def end_loader(iterator: EpochBatchIterator | None) -> None:
    """End the loader processes of an epoch that is over.

    The iterator of an epoch and its loader refer to each other. Left to the garbage collector, which closes
    the queues of the processes before it asks them to end, each process would be waited for, 5 s long.
    """
    if iterator is not None:
        iterator._cur_epoch_itr = None


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
        # what `mmpt replay` gives: see mmpt.fairseq_plugin.replay
        parser.add_argument("--replay-until", type=int, help=SUPPRESS)
        parser.add_argument("--replay-threads", type=int, help=SUPPRESS)
        parser.add_argument("--replay-record", help=SUPPRESS)
        parser.add_argument("--replay-goes-on", action="store_true", help=SUPPRESS)

    def __init__(self, args: Namespace):
        super().__init__(args)
        compat.check_run(args)
        self.config = load_config(args.taskconfig, [*args.overrides, *_precision(args)])
        self.share = share(self.config, args.distributed_world_size)
        compat.check_share(args, self.share)
        compat.check_saves(args, self.config.job.sharded_saves)
        self.passed = (-1, 0)  # update, and its batches that have passed
        self.iterators: dict[int, EpochBatchIterator] = {}  # of a data set, by its id: the latest
        HEART.timeout_s, HEART.start_timeout_s = self.config.job.timeout, self.config.job.start_timeout
        self.folder, self.accepted = RunFolder(self.config), args.accept_changes.split(",")
        if rank() == 0 and args.replay_until is None:
            self.folder.open(self.accepted, args.distributed_world_size)
        self.mmtask = build_task(self.config)
        self.model: Any = None  # fairseq's, which holds ours
        self.autocast_to: torch.dtype | None = None  # of training in half precision on the CPU
        self.is_done = False  # set when a checkpoint is loaded that a run ended with
        self.data_wait = DataWait()
        self.utilisation = Utilisation.here(self.config, args.distributed_world_size, args.cpu)
        self.recorder = Recorder(args)
        self.zero_shot_values: dict[str, float] = {}
        # with weights in shards one process alone cannot encode
        draws = args.tensorboard_logdir and rank() == 0 and args.ddp_backend != "fully_sharded"
        self.plans = PlanPictures(args.tensorboard_logdir, self._plan) if draws else None

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
        if split == "train" and not compat.trains_on_cpu(self.args):
            send_as_stored(dataset)
        if split == "train" and rank() == 0:
            self.folder.check_items(len(dataset), self.accepted)
        dataset.seed = self.args.seed
        whole = self.share.global_batch if self.share else None
        index = INDEX if self.recorder.record and split == "train" else None
        self.datasets[split] = FairseqMMDataset(dataset, split == "train", whole, index)

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
                if rank() == 0 and self.args.replay_until is None:
                    self.folder.check_files()
                self.mmtask.begin_epoch(dataset.dataset, epoch, self.model)
        kwargs["disable_iterator_cache"] = True
        if kwargs.get("num_workers") == 0:
            # fairseq would draw batches in a thread beside training; once that thread ends, training's own
            # OpenMP threads wait for its pool at every step, and the last ten updates of an epoch take many
            # times as long
            kwargs["data_buffer_size"] = 0
        end_loader(self.iterators.pop(id(dataset), None))
        iterator = super().get_batch_iterator(dataset, *args, epoch=epoch, **kwargs)
        iterator.persistent_workers = False  # an iterator lasts for one epoch; its processes would outlive it
        self.iterators[id(dataset)] = iterator
        if dataset is self.datasets.get("train"):
            if self.share:
                follow_plan(iterator, self.share, self.args.seed)
            if isinstance(dataset.dataset, MixedDataset):
                follow_mixture(iterator, dataset.dataset, self.args.update_freq)
            self.data_wait.watch(iterator)
        return iterator

    def begin_valid_epoch(self, epoch: int, model: Any) -> None:
        """Run the zero-shot test once per validation."""
        with HEART.during("zero-shot test", slow=True):
            self.zero_shot_values = self.mmtask.zero_shot(self.model.mmmodel)

    def post_validate(self, model: Any, stats: Mapping[str, Any], agg: Any) -> None:
        """Called by fairseq at the end of a validation."""
        if self.plans is not None:
            with HEART.during("transport plan", slow=True):
                self.plans.add(stats["num_updates"])

    def _plan(self) -> tuple[str, np.ndarray]:
        """The first validation video and a picture of its transport plan."""
        from mmpt.pages.plans import picture, plan_now  # for runs with TensorBoard alone

        data = self.datasets["valid"].dataset
        found = plan_now(self.model.mmmodel, self.config, data.text_processor.tokenizer, data.aligner)
        return found.video_id, picture(found)

    def train_step(
        self,
        sample: Any,
        model: Any,
        criterion: Any,
        optimizer: Any,
        update_num: int,
        ignore_grad: bool = False,
    ) -> Any:
        """Tells the losses which update this is, and draws by which of its items these are."""
        self.mmtask.num_updates = update_num
        if self.share:
            done = self.passed[1] if self.passed[0] == update_num else 0
            self.passed = update_num, done + 1
            size, freq = self.share.batch_size, self.share.update_freq
            before = (rank() * freq + done) * size
            self.mmtask.place = Place(self.args.seed, update_num, before, size)
        self.recorder.start(update_num, self.folder)
        # a copy: fairseq keeps the batch that stands in where a rank has none
        sample = unpack(sample, next(model.parameters()).dtype)
        recorded = self.recorder.wants(update_num + 1)
        indices = sample.pop(INDEX).tolist() if INDEX in sample else []
        if recorded:
            self.recorder.batch(self.mmtask, self.model, sample, indices)
        loss, size, log = super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad)
        if recorded:
            self.recorder.terms(log)
        self.utilisation.count(sample, log["nsentences"])
        return loss, size, log

    def optimizer_step(self, optimizer: Any, model: Any, update_num: int) -> None:
        """Logs the hash of the gradient it steps by, and the memory that the update took."""
        self.recorder.gradient(optimizer, update_num + 1)
        super().optimizer_step(optimizer, model, update_num)
        STRAGGLERS.peak_gib = max(STRAGGLERS.peak_gib, memory_peak(self.args.cpu))

    def get_checkpoint_dict(self) -> dict[str, Any]:
        """fairseq stores this in every checkpoint."""
        state = {**self.mmtask.resume_state(), "processes": self.args.distributed_world_size}
        state["share"] = dataclasses.asdict(self.share) if self.share else None
        state["early_stop"] = {name: float(value) for name, value in compat.early_stop_memory().items()}
        return {"mmtask": state, "config": to_dict(self.config)}

    def resume(self, extra_state: Mapping[str, Any]) -> None:
        """Called before the first batches are drawn, with what a checkpoint stored; only the middle of an
        epoch matters."""
        position, state = extra_state["train_iterator"], extra_state.get("mmtask", {})
        done = position["iterations_in_epoch"]
        if done > 0:
            position["iterations_in_epoch"] = self._batches_done(done, position["epoch"], state)
            self.mmtask.resume(state, position["epoch"])

    def _batches_done(self, done: int, epoch: int, state: Mapping[str, Any]) -> int:
        """Batches of the epoch that each process of this run is to skip.

        Args:
            done: by each process of the run that stored `state`.
        """
        now = self.args.distributed_world_size
        before, stored = state.get("processes", now), state.get("share")
        if bool(stored) != bool(self.share):
            logger.warning(
                "epoch %d begins anew: its order of items with dataset.global_batch is not the one without, "
                "and %d batches of %d processes were done",
                epoch,
                done,
                before,
            )
            return 0
        if stored is None or self.share is None:
            if before == now:
                return done
            # batches are dealt out in turns; those of a turn that the new number of processes would only
            # partly finish are drawn again
            logger.info(
                "epoch %d: %d batches were done by %d processes, %d go on", epoch, done * before, before, now
            )
            return done * before // now
        # the order of items is the same whatever the size of a global batch
        items = done // stored["update_freq"] * stored["global_batch"]
        updates, again = divmod(items, self.share.global_batch)
        if again:
            logger.warning(
                "epoch %d: dataset.global_batch has changed; the last %d of %d items are drawn again",
                epoch,
                again,
                items,
            )
        elif before != now:
            logger.info("epoch %d: %d items were done by %d processes, %d go on", epoch, items, before, now)
        return updates * self.share.update_freq

    def reduce_metrics(self, logging_outputs: list, criterion: Any) -> None:
        """Adds what hardware and ranks do, and the share of time spent waiting for data; in validation the
        numbers of `eval.valid_project`."""
        self.mmtask.assert_finite()  # fairseq reads values here, too
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
        metrics.log_scalar("peak_gib", STRAGGLERS.peak_gib, weight=0, priority=182, round=2)
        if self.utilisation.per_clip is not None:
            metrics.log_derived("mfu", self._mfu, priority=181)

    def _mfu(self, meters: Mapping[str, Any]) -> float:
        return safe_round(self.utilisation.of_rate(meters["clips_per_s"].avg), 4)

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


def follow_plan(iterator: EpochBatchIterator, share: Share, seed: int) -> None:
    """Let `iterator` hand out what the data plan gives this process, instead of dealing out shuffled
    batches."""
    plan = DataPlan(len(iterator.dataset), share.global_batch, seed)

    def ordered_batches(epoch: int, fix_batches_to_gpus: bool, shuffle: bool) -> list[np.ndarray]:
        return plan.share(epoch, iterator.shard_id, iterator.num_shards, share.batch_size, shuffle)

    iterator.ordered_batches = ordered_batches


def follow_mixture(iterator: EpochBatchIterator, dataset: MixedDataset, update_freq: list[int]) -> None:
    """Let `iterator` hand out updates of one set each.

    Args:
        update_freq: batches of a process in an update, of each epoch; the last of all further ones.
    """
    plan = dataset.plan()

    def ordered_batches(epoch: int, fix_batches_to_gpus: bool, shuffle: bool) -> list[np.ndarray]:
        freq = update_freq[min(epoch, len(update_freq)) - 1]
        return plan.share(epoch, iterator.shard_id, iterator.num_shards, freq)

    iterator.ordered_batches = ordered_batches


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
