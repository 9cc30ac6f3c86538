"""Everything that is wrong with a project file, found without starting anything."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mmpt.config import ConfigError, load_config
from mmpt.config.checks import check_training
from mmpt.config.fields import Problem


def check(config: str | Path, overrides: Iterable[str] = ()) -> list[Problem]:
    """What is wrong with a project file; empty where nothing is.

    Args:
        config: path of the file.
        overrides: `section.key=value` texts merged last.
    """
    try:
        read = load_config(config, overrides)
        if read.base_dir is None and not read.predictor and read.dataset.split != "test":
            check_training(read)
    except ConfigError as error:
        return error.problems
    return []
