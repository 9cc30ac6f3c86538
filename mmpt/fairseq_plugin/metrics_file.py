"""`metrics.jsonl` in the run folder: one line per logged update or validation, for plots and grep.

    {"tag": "start", "update": 0, "processes": 2, "threads": 1, "cpu": false, "changes": {}}
    {"tag": "train_inner", "update": 20, "epoch": 1, "loss": 9.31, "text_to_video": 4.6, "clips_per_s": 812,
    "data_wait": 0.01, ..., "grad_hash": "31cf08f5a25d1e6c", "processes": 2}

A resumed run appends, after a line that says where it starts and what differs from `config.yaml`; where an
update was trained twice, its last line counts. `grad_hash` is that of the gradient with which the update was
made (`mmpt replay` repeats it).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from fairseq.logging import progress_bar
from fairseq.logging.meters import AverageMeter, StopwatchMeter, TimeMeter

from mmpt.fairseq_plugin.advice import Advice
from mmpt.ops.distributed import rank

NAME = "metrics.jsonl"
# what the line of an update has beside fairseq's averages
of_update: dict[str, Any] = {}

_fairseq_progress_bar = progress_bar.progress_bar


def progress_bar_with_file(
    iterator: Any, *args: Any, aim_param_checkpoint_dir: str | None = None, **kwargs: Any
) -> Any:
    """fairseq's progress bar, which also writes the file on the first process; fairseq names the run folder
    by that argument."""
    if aim_param_checkpoint_dir:
        os.environ.setdefault(
            "WANDB_DIR", aim_param_checkpoint_dir
        )  # else Weights & Biases litters the current folder
    bar = _fairseq_progress_bar(iterator, *args, aim_param_checkpoint_dir=aim_param_checkpoint_dir, **kwargs)
    return (
        MetricsFile(bar, Path(aim_param_checkpoint_dir) / NAME)
        if aim_param_checkpoint_dir and rank() == 0
        else bar
    )


class MetricsFile(progress_bar.BaseProgressBar):
    """A progress bar that writes what it is told to log."""

    def __init__(self, wrapped: progress_bar.BaseProgressBar, path: Path):
        self.wrapped = wrapped
        self.path = path
        self.advise = Advice()

    def __iter__(self) -> Iterator:
        return iter(self.wrapped)

    def log(self, stats: Mapping[str, Any], tag: str | None = None, step: int | None = None) -> None:
        """Every `log_interval` updates."""
        stats = _counted(stats)
        self._write(stats, tag, step)
        self.wrapped.log(stats, tag=tag, step=step)

    def print(self, stats: Mapping[str, Any], tag: str | None = None, step: int | None = None) -> None:
        """At the end of an epoch or a validation."""
        stats = _counted(stats)
        self._write(stats, tag, step)
        self.wrapped.print(stats, tag=tag, step=step)

    def update_config(self, config: Mapping[str, Any]) -> None:
        """Passes through."""
        self.wrapped.update_config(config)

    def _write(self, stats: Mapping[str, Any], tag: str | None, step: int | None) -> None:
        line = {"tag": tag, "update": step} | {name: _number(value) for name, value in stats.items()}
        if tag == "train_inner" and of_update.get("update") == step:
            line |= of_update
        write(self.path, line)
        self.advise(tag, step, line)


def _counted(stats: Mapping[str, Any]) -> dict[str, Any]:
    """Without averages over nothing: of terms that no update since the last line had."""
    return {name: value for name, value in stats.items() if value is not None}


def write(path: Path, line: Mapping[str, Any]) -> None:
    """Append one line."""
    with open(path, "a") as file:
        file.write(json.dumps(line) + "\n")


def _number(value: Any) -> Any:
    if isinstance(value, AverageMeter):
        value = value.avg
    elif isinstance(value, (TimeMeter, StopwatchMeter)):
        value = value.smoothed_value
    return value.item() if isinstance(value, torch.Tensor) else value
