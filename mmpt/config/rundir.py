"""Run folders: the only place that creates them. Rank 0 does; a dry run never comes here."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

from mmpt.config.check import check_training
from mmpt.config.schema import Config
from mmpt.config.yamlfile import write_yaml


def tensorboard_dir(config: Config) -> str | None:
    """`save_dir/<name>_<n>` with the first number above those taken; None where the project file asks for no
    tensorboard.

    Reads the folder, creates nothing. Entries such as `run_tmp` do not count.
    """
    name = config.trainer.tensorboard_logdir
    if not name:
        return None
    save_dir = config.trainer.save_dir or ""
    entries = os.listdir(save_dir) if os.path.isdir(save_dir) else []
    taken = [
        int(match[1]) for entry in entries if (match := re.fullmatch(rf"{re.escape(name)}_(\d+)", entry))
    ]
    return os.path.join(save_dir, f"{name}_{max(taken, default=-1) + 1}")


def create_run_dir(config: Config, rank: int = 0) -> Path | None:
    """Create `fairseq.checkpoint.save_dir` and write the resolved `config.yaml` into it; other ranks than 0
    do nothing.

    The file loads back to the same configuration.

    Raises:
        ConfigError: no save_dir, or another key that training needs is missing.
    """
    check_training(config)
    if rank != 0:
        return None
    save_dir = Path(config.trainer.save_dir)
    write_yaml(
        save_dir / "config.yaml",
        to_dict(config),
        header=f"{config.source} with its includes and defaults, as last trained",
    )
    return save_dir


def to_dict(config: Config) -> dict[str, Any]:
    """The configuration as YAML keys, defaults included, nulls left out where null is the default."""
    return {name: value for name, value in _non_null(config).items() if name != "source"}


def _non_null(section: Any) -> dict[str, Any]:
    values = {}
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            values[field.name] = _non_null(value)
        elif value is not None:
            values[field.name] = value
    return values
