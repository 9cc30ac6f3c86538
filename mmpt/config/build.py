"""A plain dict -> the dataclasses of `schema.py`; everything that is wrong is raised together."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from mmpt.config.fields import ConfigError, Reader, keys_of
from mmpt.config.schema import Config


def build_config(tree: Mapping[str, Any], source: str, origin: Callable[[str], str] | None = None) -> Config:
    """The typed form of a resolved project file.

    Args:
        tree: what `recursive_config` returns.
        source: the file, kept as `config.source`.
        origin: dotted key -> the file that sets it, for error messages.

    Raises:
        ConfigError: one line per unknown key, wrong type or value outside its choices.
    """
    reader = Reader(origin or (lambda key: source), _all_names)
    config = reader.section(Config, tree)
    for name, group in (config.task_group or {}).items():
        _check_group(group, f"task_group.{name}", reader)
    if reader.problems:
        raise ConfigError(reader.problems)
    return dataclasses.replace(config, source=source)


def _check_group(group: Any, place: str, reader: Reader) -> None:
    """A pipeline's task group holds a task_list and keys that overwrite those of the listed files."""
    if isinstance(group, Mapping) and not isinstance(group.get("task_list"), list | None):
        reader.add(f"{place}.task_list", expected="a list of file names", got=group["task_list"])
    keys = (
        {name: value for name, value in group.items() if name != "task_list"}
        if isinstance(group, Mapping)
        else group
    )
    reader.section(Config, keys, place)


@functools.cache
def _all_names() -> list[str]:
    """Dotted name of every declared key."""
    names = list(keys_of(Config))
    for section, key in keys_of(Config).items():
        if dataclasses.is_dataclass(key.hint):
            names += [f"{section}.{name}" for name in keys_of(key.hint)]
    return names
