"""What fairseq 0.12.3 needs to train, save and resume on current torch, on one or many processes, with or
without a GPU.

Each repair says what breaks without it. All of them act when the plugin is imported, whether through
`train.py` or through `fairseq-train --user-dir mmpt`.
"""

from __future__ import annotations

import copy
import logging
import os
import pickle
import re
import sys
import warnings
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from fairseq import checkpoint_utils, options, trainer
from fairseq.distributed import utils as distributed_utils
from fairseq.logging import progress_bar
from fairseq.utils import eval_str_list
from omegaconf import DictConfig, OmegaConf

from mmpt.checkpoints import shards
from mmpt.checkpoints.weights import read_state_dict
from mmpt.config.fairseq_args import Share
from mmpt.fairseq_plugin import checkpoint_files, metrics_file, saving, tensorboard
from mmpt.ops.precision import multiplies_natively

logger = logging.getLogger(__name__)

_fairseq_parse = options.parse_args_and_arch
_fairseq_load_to_cpu = checkpoint_utils.load_checkpoint_to_cpu
_fairseq_load_checkpoint = checkpoint_utils.load_checkpoint
_fairseq_infer_init_method = distributed_utils.infer_init_method
_fairseq_trainer_load = trainer.Trainer.load_checkpoint
_fairseq_trainer_init = trainer.Trainer.__init__
_fairseq_train_step = trainer.Trainer.train_step


def apply() -> None:
    """Put the repairs in place; calling it again changes nothing."""
    # fairseq stores its arguments in every checkpoint, and torch >= 2.6 refuses to unpickle what is not
    # allow-listed
    torch.serialization.add_safe_globals([Namespace])
    options.parse_args_and_arch = parse_args_and_arch
    checkpoint_utils.load_checkpoint_to_cpu = load_checkpoint_to_cpu
    checkpoint_utils.load_checkpoint = load_checkpoint
    checkpoint_utils.torch_persistent_save = checkpoint_files.save
    checkpoint_utils.save_checkpoint = saving.save_checkpoint
    checkpoint_utils.PathManager = checkpoint_files.AtomicPathManager
    trainer.Trainer.load_checkpoint = _load_on_all_ranks
    trainer.Trainer.__init__ = _in_full_precision_on_the_cpu
    trainer.Trainer.train_step = _train_step
    distributed_utils.infer_init_method = infer_init_method
    progress_bar.progress_bar = metrics_file.progress_bar_with_file
    progress_bar.TensorboardProgressBarWrapper = tensorboard.GroupedCurves
    # non-events: fairseq always asks for pinned memory, GPU or not, and uses hydra and torch in ways that
    # they call old
    warnings.filterwarnings("ignore", message=".*pin_memory.*no accelerator.*", category=UserWarning)
    warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="hydra")
    warnings.filterwarnings("ignore", category=FutureWarning, module="fairseq")
    warnings.filterwarnings(
        "ignore", message=r"\s*'config' is validated against ConfigStore", category=UserWarning
    )


def parse_args_and_arch(parser: Any, input_args: list[str] | None = None, *args: Any, **kwargs: Any) -> Any:
    """fairseq's parser, without what it makes of `--bf16`: a run on a TPU, even where there is a GPU."""
    parsed = _fairseq_parse(parser, input_args, *args, **kwargs)
    found = parsed[0] if isinstance(parsed, tuple) else parsed  # with the arguments that it does not know
    found.tpu = found.tpu and "--tpu" in (sys.argv if input_args is None else input_args)
    return parsed


def check_run(args: Namespace) -> None:
    """Refuse settings under which fairseq would crash late or train silently wrong.

    Raises:
        ValueError: says what to change.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    on_cpu = trains_on_cpu(args)
    if world > 1 and args.distributed_world_size == 1:
        raise ValueError(
            f"{world} processes were started, but fairseq was told of 1: each would train a model of its "
            "own. "
            f"Add --distributed-world-size {world} (locallaunch.py does)."
        )
    if on_cpu and args.fp16:
        raise ValueError(
            "--fp16 needs a GPU and this run has none. Set fairseq.common.fp16: false, launch with --cpu, "
            "which leaves it out, or train in bfloat16: fairseq.common.bf16: true."
        )
    if on_cpu and args.memory_efficient_bf16:
        raise ValueError(
            "--memory-efficient-bf16 needs a GPU and this run has none: on the CPU weights stay float32. Set "
            "fairseq.common.memory_efficient_bf16: false and fairseq.common.bf16: true."
        )
    if args.write_checkpoints_asynchronously:
        raise ValueError(
            "fairseq.checkpoint.write_checkpoints_asynchronously needs another package, and checkpoints are "
            "written while training goes on without it. Remove the key."
        )
    if args.wandb_project and not hasattr(
        progress_bar.wandb, "init"
    ):  # a folder `wandb` of earlier runs imports as well
        raise ValueError(
            f"fairseq.common.wandb_project={args.wandb_project} asks for Weights & Biases, which is not "
            "installed: pip install wandb, "
            "or remove the key."
        )
    if on_cpu and args.distributed_world_size > 1 and args.ddp_backend not in ("legacy_ddp", "no_c10d"):
        raise ValueError(
            f"--ddp-backend {args.ddp_backend} does not run on CPU processes. Set "
            "fairseq.optimization.ddp_backend: legacy_ddp."
        )


def trains_on_cpu(common: Any) -> bool:
    """Whether fairseq's settings of that name, on this machine, mean the CPU."""
    return common.cpu or not torch.cuda.is_available()


def _in_full_precision_on_the_cpu(self: Any, cfg: DictConfig, task: Any, *args: Any, **kwargs: Any) -> None:
    """With `bf16` fairseq keeps weights, and what it saves of them, in bfloat16. On the CPU the products are
    bfloat16 by autocast instead, so that a run goes on from a checkpoint with the very weights it had."""
    if cfg.common.bf16 and trains_on_cpu(cfg.common):
        cfg = copy.deepcopy(cfg)  # what the run was asked for is logged as it was
        cfg.common.bf16 = False
        task.autocast_to = torch.bfloat16
        logger.info("products in bfloat16 by autocast; weights, their gradients and sums in float32")
        if not multiplies_natively(torch.device("cpu")):
            logger.warning(
                "this CPU has no instructions for bfloat16: training is likely faster with "
                "fairseq.common.bf16: false"
            )
    _fairseq_trainer_init(self, cfg, task, *args, **kwargs)


def _train_step(self: Any, samples: Any, raise_oom: bool = False) -> Any:
    """fairseq's update; where it stops at a gradient that is not finite, the error names the term of the loss
    that was the first."""
    try:
        return _fairseq_train_step(self, samples, raise_oom)
    except FloatingPointError:
        self.task.mmtask.assert_finite()
        raise


def check_share(args: Namespace, share: Share | None) -> None:
    """Refuse flags under which an update would not be one `dataset.global_batch`.

    Raises:
        ValueError: says which flags are.
    """
    if share is None:
        return
    wanted = {"batch_size": [share.batch_size], "update_freq": [share.update_freq]}
    got = {name: eval_str_list(getattr(args, name), int) for name in wanted}
    if got != wanted:
        raise ValueError(
            f"{args.distributed_world_size} processes share dataset.global_batch by --batch-size "
            f"{share.batch_size} --update-freq {share.update_freq}, got {args.batch_size} and "
            f"{args.update_freq}. `mmpt train` gives these flags itself."
        )


def check_saves(args: Namespace, sharded: bool) -> None:
    """Refuse sharded saves of a model that no process holds as a whole.

    Raises:
        ValueError: says which key is in the way.
    """
    if sharded and args.ddp_backend == "fully_sharded":
        raise ValueError(
            "job.sharded_saves shares a checkpoint out among processes that each hold the whole model. With "
            "fairseq.distributed_training.ddp_backend: fully_sharded use its own key, use_sharded_state, "
            "or set legacy_ddp."
        )


def infer_init_method(cfg: DictConfig, force_distributed: bool = False) -> None:
    """Join the processes that torchrun started.

    fairseq infers ranks from the number of CUDA devices: on CPU it divides by zero, and with one visible GPU
    per process every process would take itself for the only one.
    """
    if cfg.distributed_world_size > 1 and "LOCAL_RANK" in os.environ and cfg.distributed_init_method is None:
        world = int(os.environ["WORLD_SIZE"])
        if world != cfg.distributed_world_size:
            raise ValueError(
                f"torchrun started {world} processes, but --distributed-world-size says "
                f"{cfg.distributed_world_size}. Make them equal."
            )
        cfg.distributed_init_method = "env://"
        cfg.distributed_rank = int(os.environ["RANK"])
        cfg.device_id = int(os.environ["LOCAL_RANK"]) % max(torch.cuda.device_count(), 1)
        cfg.distributed_no_spawn = True
        if not torch.cuda.is_available():
            cfg.distributed_backend = "gloo"
        return
    _fairseq_infer_init_method(cfg, force_distributed)


def load_checkpoint_to_cpu(
    path: str, arg_overrides: Mapping | None = None, load_on_all_ranks: bool = False
) -> dict[str, Any]:
    """fairseq's loader, which here also takes weights alone (`.pt` or `.safetensors`), and of files of other
    trainers, which hold objects, the weights; a file that would run code is refused by name.

    Raises:
        ValueError: the file holds objects that a checkpoint has no business to hold.
    """
    if str(path).endswith(".safetensors"):
        return _as_fairseq(read_state_dict(path))
    try:
        return shards.fill(_fairseq_load_to_cpu(path, arg_overrides, load_on_all_ranks), Path(path))
    except KeyError:  # the entries that fairseq looks for are not there
        return _as_fairseq(read_state_dict(path))
    except pickle.UnpicklingError as error:
        try:
            weights = read_state_dict(path)
        except ValueError:  # torch's message is a page; what it met stands between these two phrases
            found = re.search(r"WeightsUnpickler error: (.*?)(?: Please | Check |\n|$)", str(error))
            raise ValueError(
                f"{path} is refused: it holds more than tensors and settings, and loading it could run code. "
                f"{found[1] if found else error}"
            ) from error
        logger.warning("%s holds objects of another trainer: its weights alone are taken", path)
        return _as_fairseq(weights)


def _as_fairseq(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Weights alone in the form of a fairseq checkpoint that stands before its first update."""
    history = [{"criterion_name": "", "optimizer_name": "", "lr_scheduler_state": {}, "num_updates": 0}]
    start = {"train_iterator": {"version": 2, "epoch": 1, "iterations_in_epoch": 0}}
    return {
        "model": dict(weights),
        "optimizer_history": history,
        "extra_state": start,
        "last_optimizer_state": None,
    }


def load_checkpoint(cfg: DictConfig, trainer: Any, **kwargs: Any) -> tuple[Any, Any]:
    """Resume before restoring.

    A job that was killed comes back with the same command line. fairseq would then start again from
    `restore_file`, or apply the `reset_*` flags that were meant for the first start; here the newest intact
    checkpoint of `save_dir` comes first, with everything in it, and `restore_file` and `reset_*` only seed a
    run that has none. A `restore_file` inside `save_dir` is an explicit wish, and is done as said.

    Raises:
        FileNotFoundError: `restore_file` is named and absent (fairseq would silently train from scratch).
    """
    restore, default = Path(cfg.restore_file), "checkpoint_last.pt"
    explicit = cfg.restore_file != default and restore.resolve().parent == Path(cfg.save_dir).resolve()
    newest = None if explicit else checkpoint_files.newest_intact(cfg.save_dir)
    if newest is not None:
        logger.info(
            "resuming from %s; restore_file and reset flags only start a run without checkpoints", newest
        )
        resets = {f"reset_{part}": False for part in ("optimizer", "lr_scheduler", "meters", "dataloader")}
        cfg = OmegaConf.merge(cfg, {"restore_file": str(newest), "finetune_from_model": None, **resets})
    elif cfg.restore_file != default and not restore.is_file():
        raise FileNotFoundError(
            f"fairseq.checkpoint.restore_file={cfg.restore_file} does not exist. Train or download it first, "
            "or remove the key to start from the initial weights."
        )
    trainer.goes_on = not cfg.reset_dataloader
    return _fairseq_load_checkpoint(cfg, trainer, **kwargs)


def _load_on_all_ranks(self: Any, *args: Any, **kwargs: Any) -> Any:
    """Every rank reads the file itself: fairseq's broadcast unpickles settings that torch >= 2.6 refuses.

    Besides, a run goes on with its early stop where it was, and knows when it had ended.
    """
    self.cfg.checkpoint.load_checkpoint_on_all_dp_ranks = True
    extra_state = _fairseq_trainer_load(self, *args, **kwargs)
    if extra_state is not None and self.goes_on:
        early_stop_memory().update(extra_state.get("mmtask", {}).get("early_stop", {}))
        self.task.resume(extra_state)
    self.task.is_done = _has_ended(self.cfg, self.get_num_updates())
    return extra_state


def early_stop_memory() -> dict[str, float]:
    """What stopping by `fairseq.checkpoint.patience` goes by: the best value, and validations since; fairseq
    keeps it on a function."""
    train = sys.modules.get("fairseq_cli.train")
    return {} if train is None else vars(train.should_stop_early)


def _has_ended(cfg: DictConfig, updates: int) -> bool:
    limit, patience = cfg.optimization.max_update, cfg.checkpoint.patience
    return 0 < limit <= updates or 0 < patience <= early_stop_memory().get("num_runs", 0)
