"""Sections that everybody shares and to which the classes named in a file add keys of their own.

`dataset:` holds what every data set has (declared in `schema.py`) and what the named processors and aligner
declare in their `Config`. Both are read as one: `config.dataset.way` is there for a few-shot processor.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from operator import attrgetter
from typing import Any, ClassVar

from mmpt.config.fields import ConfigError, Problem, Section, cached, keys_of
from mmpt.registry import REGISTRIES, Entry, Registry, UnknownName, add_plugins, known, plugins


class SharedSection(Section):
    """A section with the keys of the named classes as further fields.

    A key of a class that is not named reads as its default; it becomes a field where it is given a value.
    """

    SECTION: ClassVar[str]  # dotted name; empty: the top level
    OWN: ClassVar[tuple[type[Section], ...]] = ()  # dataclasses of keys of the classes named

    def __new__(cls, **values: Any) -> SharedSection:
        names = {f"{cls.SECTION}.{name}".lstrip("."): value for name, value in values.items()}
        made = object.__new__(composed(cls, configs_named(cls.SECTION, names), values))
        if not isinstance(made, cls):  # other classes or keys; Python initialises its own kind alone
            type(made).__init__(made, **values)
        return made

    @classmethod
    def _place(cls) -> str:
        return cls.SECTION

    def __getattr__(self, name: str) -> Any:
        owner = None if name.startswith("_") else owner_of(self.SECTION, name)
        if owner is None or owner.config is None:
            raise AttributeError(
                f"no class declares a key {name!r} for the section {self.SECTION or 'of the file'}"
            )
        field = owner.config.__dataclass_fields__[name]
        value = field.default if field.default is not dataclasses.MISSING else field.default_factory()
        object.__setattr__(self, name, value)  # items of a data set ask for it again and again
        return value

    def __reduce__(self) -> tuple[Any, ...]:
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return _rebuild, (_shared(type(self)), values, plugins())


def required(section: SharedSection, key: str, reader: object = None) -> Any:
    """The value of a key that its reader cannot do without.

    Args:
        section: one section, or a whole file.
        key: in it; of a file dotted, such as `dataset.max_len`.
        reader: whose class the message names; None: one of those that the file names.

    Raises:
        ConfigError: it is not set; the message names the key, and the file where that is known.
    """
    value = attrgetter(key)(section)
    if value is None:
        name = f"{section.SECTION}.{key}".lstrip(".")
        who = "the classes named in this file need" if reader is None else f"{type(reader).__name__} needs"
        what = f"{name} is not set, but {who} it."
        raise ConfigError([Problem(name, what, file=getattr(section, "source", ""))])
    return value


def _rebuild(cls: type[SharedSection], values: Mapping[str, Any], plugins: tuple[str, ...]) -> SharedSection:
    add_plugins(plugins)
    return cls(**values)


def _shared(cls: type[SharedSection]) -> type[SharedSection]:
    """The class that was composed with others."""
    return next(base for base in cls.__mro__ if SharedSection in base.__bases__)


def entries_named(section: str, names: Mapping[str, Any]) -> list[tuple[str, Registry, Entry]]:
    """The classes whose keys stand in a section: dotted key that names it, registry, entry.

    Unknown names are left out.

    Args:
        section: dotted name.
        names: dotted key -> value, of a whole file.
    """
    found = []
    for registry in REGISTRIES.values():
        for key in registry.keys if registry.section == section else ():
            if isinstance(names.get(key), str):
                try:
                    found.append((key, registry, registry.describe(names[key])))
                except UnknownName:
                    continue
    return found


def configs_named(section: str, names: Mapping[str, Any]) -> tuple[type[Section], ...]:
    """The dataclasses of keys of those classes."""
    configs = [entry.config for _, _, entry in entries_named(section, names)]
    return tuple(dict.fromkeys(config for config in configs if isinstance(config, type)))


def declared(section: str) -> Mapping[str, Entry]:
    """Every key that some class declares for a section -> the first such class."""
    return _declared(section, known())


@functools.lru_cache(maxsize=64)
def _declared(section: str, state: Any) -> Mapping[str, Entry]:
    found: dict[str, Entry] = {}
    for registry in REGISTRIES.values():
        for entry in registry.entries().values() if registry.section == section else ():
            for name in keys_of(entry.config) if entry.config else ():
                found.setdefault(name, entry)
    return found


def owner_of(section: str, name: str) -> Entry | None:
    """A class that declares a key for a section; None: no class does."""
    return _owner(section, name, known())


@functools.lru_cache(maxsize=1024)
def _owner(section: str, name: str, state: Any) -> Entry | None:
    entries = [e for r in REGISTRIES.values() if r.section == section for e in r.entries().values()]
    # most classes declare their keys in their own file; the others have to be looked into one by one
    entries.sort(key=lambda entry: entry.source is None or f" {name}: " not in entry.source.text)
    return next((entry for entry in entries if entry.config and name in keys_of(entry.config)), None)


def composed(
    base: type[SharedSection], configs: tuple[type[Section], ...], values: Mapping[str, Any]
) -> type[SharedSection]:
    """The type of a section.

    Args:
        base: the shared keys, or a type that this function made.
        configs: dataclasses of keys of the classes named.
        values: what is set; keys of other classes among them become fields too.
    """
    shared, own = _shared(base), tuple(dict.fromkeys((*base.OWN, *configs)))
    # a dataclass of keys that another extends says nothing more
    own = tuple(cls for cls in own if not any(issubclass(other, cls) and other is not cls for other in own))
    cls = _join(shared, own, ())
    strange = tuple(name for name in values if name not in cls.__dataclass_fields__)
    if strange:
        owners = {name: owner_of(shared.SECTION, name) for name in strange}
        further = tuple((name, owner.config) for name, owner in owners.items() if owner and owner.config)
        cls = _join(shared, own, further)
    return cls


@cached
def _join(
    shared: type[SharedSection],
    own: tuple[type[Section], ...],
    further: tuple[tuple[str, type[Section]], ...],
) -> type[SharedSection]:
    """The type with the keys of some classes, and with single keys of others."""
    if not own and not further:
        return shared
    fields = []
    for name, owner in further:
        key = keys_of(owner)[name]
        default = {
            part: value
            for part in ("default", "default_factory")
            if (value := getattr(key.field, part)) is not dataclasses.MISSING
        }
        fields.append((name, key.hint, dataclasses.field(**default, metadata=key.field.metadata)))
    return dataclasses.make_dataclass(
        shared.__name__,
        fields,
        bases=(*own, shared),
        namespace={"OWN": own, "__module__": shared.__module__, "__doc__": shared.__doc__},
        frozen=True,
        kw_only=True,
    )
