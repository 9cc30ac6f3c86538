"""A plain dict -> the dataclasses of `schema.py` with the keys of all classes named."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from mmpt.config.fields import ConfigError, Reader, keys_of
from mmpt.config.schema import Config, DatasetConfig, EvalConfig, ModelConfig
from mmpt.config.shared import SharedSection, composed, configs_named, declared, owner_of

SECTIONS: dict[str, type[SharedSection]] = {
    "dataset": DatasetConfig,
    "model": ModelConfig,
    "eval": EvalConfig,
}


def build_config(tree: Mapping[str, Any], source: str, origin: Callable[[str], str] | None = None) -> Config:
    """The typed form of a resolved project file.

    Args:
        tree: what `recursive_config` returns.
        source: the file, kept as `config.source`.
        origin: dotted key -> the file that sets it, for error messages.

    Raises:
        ConfigError: one line per unknown key, wrong type or value outside its choices.
    """
    reader = Reader(origin or (lambda key: source), all_names)
    config = read_config(tree, source, reader)
    errors = [problem for problem in reader.problems if problem.level == "error"]
    if errors:
        raise ConfigError(errors)
    return config


def read_config(tree: Mapping[str, Any], source: str, reader: Reader) -> Config:
    """The typed form, as far as it can be read; what is wrong, and keys without effect, go to the reader.

    Raises:
        ConfigError: keys of the top level contradict each other.
    """
    config = _read(tree, reader, "")
    if config is None:  # keys of the top level contradict each other
        raise ConfigError(reader.problems)
    for name, group in (config.task_group or {}).items():
        _check_group(group, f"task_group.{name}", reader)
    return dataclasses.replace(config, source=source)


def _read(tree: Mapping[str, Any], reader: Reader, place: str) -> Config | None:
    """A file, or what a task group changes of others, whose classes those may name."""
    names = names_in(tree)
    for section, base in (("", Config), *SECTIONS.items()):
        keys = (tree.get(section) if section else tree) or {}
        if isinstance(keys, Mapping):
            cls = composed(base, configs_named(section, names), keys)
            reader.types[base] = cls
            if not place:
                _note_keys_of_others(cls, keys, section, reader)
    given = {name: {} if tree.get(name) is None else tree[name] for name in SECTIONS}
    return reader.section(reader.types[Config], {**tree, **given}, place)


def names_in(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted key -> value, of the top level and of `dataset`, `model`, `eval` and `loss`."""
    names = {key: value for key, value in tree.items() if not isinstance(value, Mapping)}
    for section in (*SECTIONS, "loss"):
        keys = tree.get(section)
        names |= (
            {f"{section}.{key}": value for key, value in keys.items()} if isinstance(keys, Mapping) else {}
        )
    return names


def _note_keys_of_others(
    cls: type[SharedSection], keys: Mapping[str, Any], section: str, reader: Reader
) -> None:
    """Published files set keys of classes that they do not name."""
    named = {name for part in (cls, *cls.OWN) for name in (keys_of(part) if part is not cls else ())}
    shared = keys_of(SECTIONS.get(section, Config))
    for name, value in keys.items():
        strange = name not in named and name not in shared and name in keys_of(cls)
        owner = owner_of(section, name) if strange else None
        if owner:
            what = f"belongs to {owner.name} and has no effect: this file names no class that reads it."
            reader.add(f"{section}.{name}".lstrip("."), what, got=value, level="note")


def _check_group(group: Any, place: str, reader: Reader) -> None:
    """A pipeline's task group holds a task_list and keys that overwrite those of the listed files."""
    if not isinstance(group, Mapping):
        reader.section(Config, group, place)
        return
    if not isinstance(group.get("task_list"), list | None):
        reader.add(f"{place}.task_list", expected="a list of file names", got=group["task_list"])
    _read({name: value for name, value in group.items() if name != "task_list"}, reader, place)


def all_names() -> list[str]:
    """Dotted name of every key that is declared anywhere."""
    names = [*keys_of(Config), *declared("")]
    for section, base in SECTIONS.items():
        names += [f"{section}.{name}" for name in (*keys_of(base), *declared(section))]
    return list(dict.fromkeys(names))
