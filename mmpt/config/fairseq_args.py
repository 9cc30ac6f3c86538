"""The `fairseq:` section -> the flags of `fairseq-train`."""

from __future__ import annotations

from typing import Any

from mmpt.config.schema import Config


def batch_size(config: Config) -> int | None:
    """Items per batch: `fairseq.dataset.batch_size` counts clips, an item holds `dataset.subsampling` of
    them. At least 1."""
    size = config.trainer.batch_size
    if size is None or config.dataset.subsampling is None:
        return size
    return max(1, size // config.dataset.subsampling)


def fairseq_args(config: Config, tensorboard_logdir: str | None = None) -> list[str]:
    """Flags in file order, one list item per word, ready for `subprocess` (no shell, no quoting).

    True gives the bare flag; false and null give nothing (every boolean of fairseq's trainer is off by
    default). A list of one is its element, a longer list is passed whole; tuples written as text, such as
    adam_betas, stay one item.

    Args:
        config: a resolved project file.
        tensorboard_logdir: replaces the folder name under that key with this run's folder.
    """
    replaced = {"batch_size": batch_size(config), "tensorboard_logdir": tensorboard_logdir}
    argv = []
    for group in config.fairseq.values():
        for key, value in group.items():
            argv += _flag(key, replaced.get(key) if replaced.get(key) is not None else value)
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
