"""A plain dict -> the dataclasses of `schema.py`; unknown keys and wrong types are collected, and raised
together."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from mmpt.config.schema import Config
from mmpt.config.yamlfile import ConfigError

_EXPECTED = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    Mapping: "`key: value` lines",
}


class _Wrong(Exception):
    """A value does not have its declared type."""


def build_config(tree: Mapping[str, Any], source: str, origin: Callable[[str], str] | None = None) -> Config:
    """The typed form of a resolved project file.

    Args:
        tree: what `recursive_config` returns.
        source: the file, kept as `config.source`.
        origin: dotted key -> the file that sets it, for error messages.

    Raises:
        ConfigError: one line per unknown key, wrong type or value outside its choices.
    """
    problems: list[tuple[str, str]] = []
    values = _section(Config, tree, "", problems)
    for name, group in (values.get("task_group") or {}).items():
        _check_group(group, f"task_group.{name}.", problems)
    if problems:
        raise ConfigError(
            "\n".join(f"{origin(key) if origin else source}: {key}: {text}" for key, text in problems)
        )
    return Config(source=source, **values)


def _check_group(group: Any, prefix: str, problems: list[tuple[str, str]]) -> None:
    """A pipeline's task group holds a task_list and keys that overwrite those of the listed files."""
    if not isinstance(group, Mapping):
        problems.append((prefix[:-1], f"expected {_EXPECTED[Mapping]}, got {group!r}."))
        return
    if not isinstance(group.get("task_list"), list | None):
        problems.append((f"{prefix}task_list", f"expected a list of file names, got {group['task_list']!r}."))
    _section(Config, {name: value for name, value in group.items() if name != "task_list"}, prefix, problems)


def _section(
    cls: type, tree: Mapping[str, Any], prefix: str, problems: list[tuple[str, str]]
) -> dict[str, Any]:
    """Keyword arguments for `cls`; keys left out, and nulls where null has no meaning, keep their
    defaults."""
    known, values = _keys(cls), {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        if name not in known:
            problems.append((path, f"unknown key.{_hint(path)}"))
            continue
        kind, optional, choices = known[name]
        if value is None:
            if optional:
                values[name] = None
        elif dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
            values[name] = kind(**_section(kind, value, f"{path}.", problems))
        elif dataclasses.is_dataclass(kind):
            problems.append((path, f"expected {_EXPECTED[Mapping]}, got {value!r}."))
        else:
            try:
                values[name] = _typed(value, kind)
            except _Wrong as wrong:
                problems.append((path, str(wrong)))
            if choices and value not in choices:
                problems.append((path, f"expected one of {', '.join(choices)}, got {value!r}."))
    return values


def _typed(value: Any, kind: Any) -> Any:
    """`value` as `kind`: a whole number passes for a number, nothing else is converted."""
    base = typing.get_origin(kind) or kind
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if base is float and number:
        return float(value)
    if not isinstance(value, base) or (base is int and not number):
        cure = f' Quote it: "{value}".' if base is str and number else ""
        raise _Wrong(f"expected {_EXPECTED[base]}, got {value!r}.{cure}")
    inner = typing.get_args(kind)
    if base is Mapping and inner and typing.get_origin(inner[1]) is Mapping:
        return {name: _typed(entry, inner[1]) for name, entry in value.items() if entry is not None}
    return value


@functools.cache
def _keys(cls: type) -> dict[str, tuple[Any, bool, tuple[str, ...]]]:
    """YAML key -> (type without None, whether null is a value, choices)."""
    hints = typing.get_type_hints(cls)
    keys = {}
    for field in dataclasses.fields(cls):
        if field.name == "source":
            continue
        kind = hints[field.name]
        members = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
        keys[field.name] = (members[0], type(None) in members, field.metadata.get("choices", ()))
    return keys


@functools.cache
def _all_names() -> dict[str, str]:
    """Dotted name -> last part, of every declared key."""
    names = {name: name for name in _keys(Config)}
    for section, (kind, _, _) in _keys(Config).items():
        if dataclasses.is_dataclass(kind):
            names |= {f"{section}.{name}": name for name in _keys(kind)}
    return names


def _hint(path: str) -> str:
    """The declared key that was probably meant: the same name in another section, else the most similar
    one."""
    name = ".".join(path.split(".")[2:]) if path.startswith("task_group.") else path
    elsewhere = [known for known, last in _all_names().items() if last == name.split(".")[-1]]
    near = elsewhere or difflib.get_close_matches(name, _all_names(), n=1, cutoff=0.6)
    return f" Did you mean {near[0]}?" if near else " See mmpt/config/schema.py for all keys."
