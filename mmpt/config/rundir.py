"""What a run folder is called and what of a configuration is kept in it."""

from __future__ import annotations

import dataclasses
import os
import re
from typing import Any

from mmpt.config.fields import Section
from mmpt.config.schema import Config


def tensorboard_dir(config: Config) -> str | None:
    """`save_dir/<name>_<n>` with the first number above those taken, where the name may be a path of another
    folder; None where the project file asks for no tensorboard.

    Reads the folder, creates nothing. Entries such as `run_tmp` do not count.
    """
    name = config.trainer.tensorboard_logdir
    if not name:
        return None
    folder, stem = os.path.split(os.path.join(config.trainer.save_dir or "", name))
    entries = os.listdir(folder) if os.path.isdir(folder) else []
    taken = [
        int(match[1]) for entry in entries if (match := re.fullmatch(rf"{re.escape(stem)}_(\d+)", entry))
    ]
    return os.path.join(folder, f"{stem}_{max(taken, default=-1) + 1}")


def to_dict(config: Section) -> dict[str, Any]:
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
