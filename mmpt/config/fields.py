"""Keys of YAML sections: declared beside the class that reads them, by one helper; read by one reader.

    @dataclass(frozen=True, kw_only=True)
    class Config(Section):
        temperature: float = option(0.07, "divides the scores", yaml="t", symbol="tau", above=0)

    Config.from_yaml({"t": 0.1}, where="loss")

Needs the standard library alone, so that a file can be checked before torch is imported.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

S = TypeVar("S")
F = TypeVar("F", bound=Callable[..., Any])

_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", list: "a list"}
_WORDS |= {tuple: "a list", Mapping: "`key: value` lines"}
_NUMBER = re.compile(
    r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?"
)  # as text: other YAML readers take 1e-5 for one
_LISTED = 24  # an unknown key is answered by all known ones only where they can be taken in at a glance


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a configuration.

    Attributes:
        key: dotted, as YAML spells it.
        what: a sentence of its own; empty: made from `expected` and `got`.
        expected: which values there are.
        got: the value found.
        cure: a sentence, such as the nearest known name.
        file: the file that sets the key, or the option of the command line.
        level: "error", or "note" for what is allowed and has no effect.
    """

    key: str
    what: str = ""
    expected: str = ""
    got: Any = None
    cure: str = ""
    file: str = ""
    level: str = "error"

    @property
    def message(self) -> str:
        """What is wrong and how to mend it, without the place."""
        return f"{self.what or f'expected {self.expected}, got {self.got!r}.'} {self.cure}".rstrip()

    def __str__(self) -> str:
        named = not self.key or self.message.startswith(self.key)
        place = [self.file] if named else [self.file, self.key]
        return ": ".join([*filter(None, place), self.message])


class ConfigError(ValueError):
    """A project file, or a value given for one, is wrong; the message lists all `problems`."""

    def __init__(self, message: str | Iterable[Problem]):
        self.problems = [Problem("", message)] if isinstance(message, str) else list(message)
        super().__init__("\n".join(map(str, self.problems)))

    def __reduce__(self) -> tuple[type, tuple[list[Problem]]]:
        return type(self), (self.problems,)


class Allowed(NamedTuple):
    """The values of a key: finite numbers within bounds, or some words. Null is a matter of the type."""

    above: float | None = None
    least: float | None = None
    most: float | None = None
    one_of: Collection[Any] = ()

    def __contains__(self, value: Any) -> bool:
        if self.one_of:
            return value in self.one_of
        if not isinstance(value, int | float):
            return True
        too_low = (self.above is not None and value <= self.above) or (
            self.least is not None and value < self.least
        )
        return math.isfinite(value) and not too_low and (self.most is None or value <= self.most)

    def __str__(self) -> str:
        if self.one_of:
            return f"one of {', '.join(map(str, self.one_of))}"
        bounds = {"above": self.above, "at least": self.least, "at most": self.most}
        return " and ".join(
            ["a finite number", *(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)]
        )


def option(
    default: Any,
    help: str,
    yaml: str | None = None,
    symbol: str | None = None,
    *,
    above: float | None = None,
    least: float | None = None,
    most: float | None = None,
    one_of: Collection[Any] = (),
    holds: type | None = None,
    formerly: Collection[str] = (),
) -> Any:
    """A key of a section; its type is the annotation.

    Args:
        default: what a missing key means; a class, dict or list is made anew for each configuration.
        help: one line of meaning.
        yaml: spelling in YAML, where it differs from the field's name.
        symbol: in the paper.
        above: bound that is itself too low.
        least: smallest value.
        most: largest value.
        one_of: the values, of a key with few.
        holds: dataclass of a section that is kept as it is written (of each section of a map of sections); it
            is checked when a file is read, and its values are typed by the class that uses it.
        formerly: what `key: true` was written as, `key` or `key: value`; refused, with the key of today.
    """
    metadata: dict[str, Any] = {
        "help": help,
        "yaml": yaml,
        "symbol": symbol,
        "allowed": Allowed(above, least, most, one_of),
    }
    metadata |= {"holds": holds, "formerly": formerly}
    if isinstance(default, type):
        return field(default_factory=default, metadata=metadata)
    if isinstance(default, dict | list):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section without keys; subclasses are frozen, keyword-only dataclasses of fields made by `option`.

    Raises:
        ValueError: a value that a key does not allow.
    """

    def __post_init__(self):
        """Checks values given in Python; subclasses add what concerns several keys."""
        names = {f.name: name for name, f in self.yaml_names().items()}
        problems = [
            _beyond(f, getattr(self, f.name), f"{self._place()}.{names[f.name]}".lstrip("."))
            for f in self._fields()
        ]
        if any(problems):
            raise ConfigError(filter(None, problems))

    @classmethod
    def _place(cls) -> str:
        """How messages name a section that comes from no file."""
        return cls.__qualname__

    @classmethod
    def _fields(cls) -> list[dataclasses.Field]:
        return [f for f in dataclasses.fields(cls) if f.metadata]

    @classmethod
    def yaml_names(cls) -> dict[str, dataclasses.Field]:
        """YAML spelling -> field."""
        return {f.metadata.get("yaml") or f.name: f for f in cls._fields()}

    @classmethod
    def from_yaml(cls: type[S], section: Mapping[str, Any], where: str) -> S:
        """Reads a section in YAML spelling.

        Args:
            section: as YAML gives it.
            where: its dotted name.

        Raises:
            ConfigError: all unknown keys and wrong values, each with its place and what is expected.
        """
        return read_section(cls, section, where)


class Reader:
    """Reads sections and collects what is wrong; a wrong key keeps its default, so that reading goes on.

    Args:
        origin: dotted key -> the file that sets it.
        elsewhere: gives the dotted names of all keys, among which a misplaced one is looked for.

    Attributes:
        problems: found so far.
        types: class in an annotation -> the class that is read in its place.
    """

    def __init__(
        self, origin: Callable[[str], str] = lambda key: "", elsewhere: Callable[[], Collection[str]] = tuple
    ):
        self.origin = origin
        self.elsewhere = elsewhere
        self.problems: list[Problem] = []
        self.types: dict[type, type] = {}

    def add(self, key: str, what: str = "", **parts: Any) -> None:
        """Note a problem, with the file that the key comes from."""
        self.problems.append(Problem(key, what, file=self.origin(key), **parts))

    def section(self, cls: type[S], tree: Any, where: str = "") -> S | None:
        """An instance of the dataclass `cls`; None where keys contradict each other.

        Keys left out, and nulls where null has no meaning, keep their defaults.

        Args:
            cls: a dataclass whose fields are made by `option`.
            tree: the section in YAML spelling.
            where: dotted name of the section; empty: the whole file.
        """
        if not isinstance(tree, Mapping):
            self.add(where, expected=_WORDS[Mapping], got=tree)
            return None
        known = keys_of(cls)
        values: dict[str, Any] = {}
        former = {was: key for key, read in known.items() for was in read.field.metadata.get("formerly", ())}
        prefix = f"{where}." if where else ""
        for name, value in tree.items():
            place = f"{prefix}{name}"
            was = [was for was in (name, f"{name}: {'null' if value is None else value}") if was in former]
            if was:
                self.add(place, f"{prefix}{was[0]} is now {prefix}{former[was[0]]}: true.")
            elif name not in known:
                self.add(place, "unknown key.", got=value, cure=self._hint(str(name), prefix, known))
            elif value is not None or known[name].optional:
                found = len(self.problems)
                read = self.value(value, known[name].hint, place)
                self._check_held(known[name], read, place)
                beyond = _beyond(known[name].field, read, place) if len(self.problems) == found else None
                if beyond:
                    self.problems.append(dataclasses.replace(beyond, file=self.origin(place)))
                if len(self.problems) == found or dataclasses.is_dataclass(read):
                    values[known[name].field.name] = read
        try:
            return cls(**values)
        except ConfigError as error:  # keys that are fine alone and wrong together
            self.problems += [
                dataclasses.replace(problem, file=self.origin(where)) for problem in error.problems
            ]
        except ValueError as error:
            self.add(where, str(error))
        return None

    def _check_held(self, key: Key, value: Any, place: str) -> None:
        """Look into a section that stays as it is written."""
        held = key.field.metadata.get("holds")
        if held is None or not isinstance(value, Mapping):
            return
        kind = next(kind for kind in members(key.hint) if kind is not type(None))
        entry = typing.get_args(kind)[1]
        if (typing.get_origin(entry) or entry) is Mapping:
            for name, entry in value.items():
                self.section(held, entry, f"{place}.{name}")
        else:
            self.section(held, value, place)

    def value(self, value: Any, hint: Any, place: str) -> Any:
        """`value` as the type `hint`; whole numbers, and numbers in quotes, pass for numbers."""
        choices = members(hint)
        if value is None and type(None) in choices:
            return None
        for choice in choices:
            base = typing.get_origin(choice) or choice
            if isinstance(choice, type) and dataclasses.is_dataclass(choice) and isinstance(value, Mapping):
                return self.section(self.types.get(choice, choice), value, place)
            if base is float and is_number(value):
                return float(value)
            if base is Any or (
                isinstance(value, list if base is tuple else _plain(base)) and not _is_disguised(value, base)
            ):
                return self._inner(value, choice, base, place)
        words = " or ".join(_words(choice) for choice in choices if choice is not type(None))
        number = isinstance(value, int | float) and not isinstance(value, bool)
        self.add(
            place,
            expected=words,
            got=value,
            cure=f'Quote it: "{value}".' if str in choices and number else "",
        )
        return None

    def _inner(self, value: Any, kind: Any, base: Any, place: str) -> Any:
        """The items of a list or map, where their type is stated."""
        inner = typing.get_args(kind)
        if base is Mapping and inner:  # a null entry takes out what an included file says
            return {
                name: self.value(item, inner[1], f"{place}.{name}")
                for name, item in value.items()
                if item is not None or type(None) in members(inner[1])
            }
        if base is tuple and inner[-1] is not Ellipsis:
            if len(value) != len(inner):
                self.add(place, expected=f"a list of {len(inner)}", got=value)
                return None
            return tuple(
                self.value(item, one, f"{place}[{i}]")
                for i, (item, one) in enumerate(zip(value, inner, strict=True))
            )
        if base in (list, tuple) and inner:
            return base(self.value(item, inner[0], f"{place}[{i}]") for i, item in enumerate(value))
        return value

    def _hint(self, name: str, prefix: str, known: Mapping[str, Any]) -> str:
        """The key that was probably meant: of the same name in another section, else the most similar one."""
        elsewhere = self.elsewhere()
        same = [key for key in elsewhere if key.split(".")[-1] == name]
        near = [f"{prefix}{key}" for key in difflib.get_close_matches(name, known, n=1)]
        meant = same or near or difflib.get_close_matches(f"{prefix}{name}", elsewhere, n=1)
        if meant:
            return f"Did you mean {meant[0]}?"
        return f"Known: {', '.join(known) or 'none'}." if len(known) <= _LISTED else ""


class Key(NamedTuple):
    """A key as the reader sees it."""

    field: dataclasses.Field
    hint: Any
    optional: bool


def cached(function: F) -> F:
    """`functools.cache` that keeps the types of the arguments."""
    return typing.cast(F, functools.cache(function))


@cached
def keys_of(cls: type) -> dict[str, Key]:
    """YAML spelling -> key: of a section the fields that `option` made, of another dataclass all fields."""
    hints = typing.get_type_hints(cls)
    fields = [f for f in dataclasses.fields(cls) if f.metadata or not issubclass(cls, Section)]
    return {
        f.metadata.get("yaml") or f.name: Key(f, hints[f.name], type(None) in members(hints[f.name]))
        for f in fields
    }


def members(hint: Any) -> tuple[Any, ...]:
    """The types of a union, or the one type."""
    return typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)


def is_number(value: Any) -> bool:
    """A number, or a text that writes one; true and false are none."""
    return (isinstance(value, int | float) and not isinstance(value, bool)) or (
        isinstance(value, str) and _NUMBER.fullmatch(value) is not None
    )


def _beyond(field: dataclasses.Field, value: Any, place: str) -> Problem | None:
    """The problem with a value that its key does not allow."""
    allowed = field.metadata.get("allowed", Allowed())
    return None if value is None or value in allowed else Problem(place, expected=str(allowed), got=value)


def read_section(cls: type[S], section: Mapping[str, Any], where: str) -> S:
    """A section as the dataclass `cls`.

    Raises:
        ConfigError: all unknown keys and wrong values, each with its place and what is expected.
    """
    reader = Reader()
    read = reader.section(cls, section, where)
    if reader.problems or read is None:
        raise ConfigError(reader.problems)
    return read


def read_value(value: Any, hint: Any, place: str) -> Any:
    """One value outside a section, as the type `hint`.

    Raises:
        ConfigError: it is of another type; the message names the place.
    """
    reader = Reader()
    read = reader.value(value, hint, place)
    if reader.problems:
        raise ConfigError(reader.problems)
    return read


def _plain(base: Any) -> Any:
    return base if isinstance(base, type) else object


def _is_disguised(value: Any, base: Any) -> bool:
    """Python counts true as the number 1; YAML does not."""
    return isinstance(value, bool) and base is int


def _words(kind: Any) -> str:
    base = typing.get_origin(kind) or kind
    return (
        _WORDS[Mapping]
        if dataclasses.is_dataclass(base)
        else _WORDS.get(base, getattr(base, "__name__", str(base)))
    )
