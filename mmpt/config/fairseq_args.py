"""The `fairseq:` section -> the flags of `fairseq-train`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mmpt.config.fields import ConfigError
from mmpt.config.schema import Config
from mmpt.registry import LOSSES


@dataclass(frozen=True)
class Share:
    """What every process does of an update with `dataset.global_batch`.

    Attributes:
        global_batch: items of the update over all processes.
        batch_size: items that pass a process at once, and its loss together.
        update_freq: batches whose gradients are added up.
    """

    global_batch: int
    batch_size: int
    update_freq: int


def batch_size(config: Config) -> int | None:
    """Items per batch: `fairseq.dataset.batch_size` counts clips, an item holds `dataset.subsampling` of
    them. At least 1."""
    return _items(config.trainer.batch_size, config)


def _items(size: int | None, config: Config) -> int | None:
    if size is None or config.dataset.subsampling is None:
        return size
    return max(1, size // config.dataset.subsampling)


def share(config: Config, processes: int) -> Share | None:
    """How `processes` share a global batch so that its gradient does not depend on their number; None where
    `dataset.global_batch` is null.

    A loss that joins the clips of all processes gets the whole global batch at once: every process passes
    its part in one batch (`model.micro_batch` bounds the memory of its towers). Any other loss is a mean over
    batches of `fairseq.dataset.batch_size`, which are dealt out and added up.

    Raises:
        ConfigError: the number of processes, or the batch size, does not divide the global batch.
    """
    said, whole = config.dataset.global_batch, _items(config.dataset.global_batch, config)
    if said is None or whole is None:
        return None
    if config.fairseq.get("optimization", {}).get("update_freq") not in (None, 1, [1]):
        raise ConfigError(
            f"{config.source}: dataset.global_batch={said} decides how many batches are accumulated. Remove "
            "fairseq.optimization.update_freq."
        )
    if whole % processes:
        fitting = [str(n) for n in range(1, min(whole, 64) + 1) if whole % n == 0]
        raise ConfigError(
            f"{config.source}: dataset.global_batch={said} is {whole} items, which {processes} processes "
            f"cannot share. Start {', '.join(fitting[:-1])} or {fitting[-1]} processes, or change it."
        )
    own = whole // processes
    if joins_ranks(config):
        return Share(whole, own, 1)
    size = batch_size(config) or own
    if own % size:
        raise ConfigError(
            f"{config.source}: each of {processes} processes has {own} items of dataset.global_batch={said}, "
            f"which fairseq.dataset.batch_size={config.trainer.batch_size} ({size} items) does not divide. "
            "The batch is what the loss takes its negatives from, so it stays the same on any number of "
            "processes: choose a size that divides."
        )
    return Share(whole, size, own // size)


def joins_ranks(config: Config) -> bool:
    """Whether the loss takes negatives from the clips of all processes.

    Raises:
        ConfigError: one part of a sum does and another does not.
    """
    answers = list(_joining(config.loss or {}))
    if len({joins for _, joins in answers}) > 1:
        local = ", ".join(name for name, joins in answers if not joins)
        raise ConfigError(
            f"{config.source}: with dataset.global_batch all parts of a loss take their negatives from all "
            f"processes, or none does; {local} does not. Set its global_negatives or gather."
        )
    return any(joins for _, joins in answers)


def _joining(section: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """Each loss of a section that can join the clips of all processes, and whether it does."""
    for part in section.get("losses") or ():
        yield from _joining(part)
    name = section.get("loss_cls")
    keys = LOSSES.describe(name).config if name else None
    for key in ("global_negatives", "gather"):
        default = getattr(keys, "__dataclass_fields__", {}).get(key)
        if default is not None:
            value = section.get(key, default.default)
            yield str(section.get("name") or name), value not in (False, None, "local")


def fairseq_args(config: Config, tensorboard_logdir: str | None = None, processes: int = 1) -> list[str]:
    """Flags in file order, one list item per word, ready for `subprocess` (no shell, no quoting).

    True gives the bare flag; false and null give nothing (every boolean of fairseq's trainer is off by
    default). A list of one is its element, a longer list is passed whole; tuples written as text, such as
    adam_betas, stay one item.

    Args:
        config: a resolved project file.
        tensorboard_logdir: replaces the folder name under that key with this run's folder.
        processes: that will share `dataset.global_batch`.
    """
    own = {"batch_size": batch_size(config), "tensorboard_logdir": tensorboard_logdir}
    division, groups = share(config, processes), list(config.fairseq.values())
    if division is not None:
        if not any(group.get("batch_size_valid") for group in groups):
            own["batch_size_valid"] = own["batch_size"]  # validation does not depend on the processes
        own |= {"batch_size": division.batch_size, "update_freq": division.update_freq}
    groups.append({key: None for key in own if not any(key in group for group in groups)})
    argv = []
    for group in groups:
        for key, value in group.items():
            argv += _flag(key, value if own.get(key) is None else own[key])
    return argv


def _flag(key: str, value: Any) -> list[str]:
    if value is None or value is False:
        return []
    flag = f"--{key.replace('_', '-')}"
    if value is True:
        return [flag]
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return [flag, str(value)]
