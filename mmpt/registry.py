"""Class names in YAML files -> classes.

Every pluggable class announces itself under the name users write in YAML; nothing else can be named there.

    @LOSSES.register()
    class MMContraLoss(Loss): ...

    LOSSES.get("MMContraLoss")         # the class; imports torch
    LOSSES.describe("MMContraLoss")    # its sentence, keys and inputs, read from the source; imports nothing
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Any, TypeVar

from mmpt.sources import Source, find_path, package_sources, read_source

C = TypeVar("C", bound=type)
PLUGIN_GROUP = "mmpt.plugins"  # entry points of installed packages, whose modules a YAML need not list


@dataclass(frozen=True)
class Entry:
    """What is known of a registered class without importing it.

    Attributes:
        name: as YAML files spell it.
        source: the file; None: a class that was registered by hand, say in a notebook.
        class_name: in that file; empty: it comes from another package.
        plugin: the plugin that brings it; None: the toolkit does.
        live: the class itself, where there is no source.
    """

    name: str
    source: Source | None = None
    class_name: str = ""
    plugin: str | None = None
    live: type | None = None

    @functools.cached_property
    def cls(self) -> type | None:
        """The class, or an outline of it: bases, docstring, constants and `Config`, but no methods."""
        if self.source is None or not self.class_name:
            return self.live
        outline = self.source.get(self.class_name)
        return outline if isinstance(outline, type) else None

    @property
    def summary(self) -> str:
        """The first sentence of its docstring."""
        text = inspect.cleandoc((self.cls and self.cls.__doc__) or "").split("\n\n")[0]
        return " ".join(text.split())

    @property
    def config(self) -> type[Any] | None:
        """The dataclass of its own keys; None: it has none."""
        inherited = getattr(self.cls, "Config", None)
        for cls in self.cls.__mro__ if self.cls is not None and isinstance(inherited, type) else ():
            if "Config" in vars(cls):
                return inherited
            if "config" not in vars(cls).get("__takes__", ("config",)):
                return _config_of_arguments(cls)
        return None

    @property
    def reads(self) -> tuple[str, ...]:
        """Keyword-only arguments without default of `forward`: tensors that it cannot do without."""
        if self.live is None:
            return getattr(self.cls, "__reads__", ())
        return keyword_arguments(self.live.forward, needed=True) if hasattr(self.live, "forward") else ()

    @property
    def given(self) -> tuple[str, ...]:
        """All keyword-only arguments of `forward`."""
        if self.live is None:
            return getattr(self.cls, "__given__", ())
        return keyword_arguments(self.live.forward) if hasattr(self.live, "forward") else ()

    @property
    def place(self) -> str:
        """File and line."""
        if self.source is None:
            return f"{self.live.__module__}.{self.live.__qualname__}" if self.live else ""
        node = self.source.nodes.get(self.class_name)
        return f"{self.source.path}:{node.lineno}" if node else str(self.source.path)


@functools.cache
def keyword_arguments(function: Callable, needed: bool = False) -> tuple[str, ...]:
    """The keyword-only arguments of a function; looking them up takes as long as a small loss.

    Args:
        function: whose.
        needed: those without default alone.
    """
    arguments = inspect.signature(function).parameters.values()
    return tuple(
        a.name for a in arguments if a.kind is a.KEYWORD_ONLY and not (needed and a.default is not a.empty)
    )


class Registry:
    """Names of one kind of class.

    Args:
        kind: what the classes are, for error messages ("loss").
        package: module imported on first look-up; importing it registers the built-in classes.
        section: of the YAML, where the keys of these classes stand; empty: at the top level.
        keys: dotted keys whose values are names of these classes.
    """

    def __init__(self, kind: str, package: str, section: str = "", keys: tuple[str, ...] = ()):
        self.kind = kind
        self.package = package
        self.section = section
        self.keys = keys
        self._classes: dict[str, type[Any]] = {}

    def register(self, name: str | None = None) -> Callable[[C], C]:
        """Class decorator: makes the class known as `name` (default: its own name).

        Raises:
            ValueError: another class already has that name.
        """

        def add(cls: C) -> C:
            key = name or cls.__name__
            known = self._classes.get(key)
            if known is not None and known is not cls:
                raise ValueError(
                    f"{self.kind} {key!r} is already registered by {known.__module__}.{known.__qualname__}; "
                    f"{cls.__module__}.{cls.__qualname__} needs another name."
                )
            self._classes[key] = cls
            return cls

        return add

    def get(self, name: str | None, where: str = "") -> type[Any]:
        """The class called `name`.

        Args:
            name: as YAML files spell it.
            where: file and key that say so, for the message.

        Raises:
            UnknownName: unknown name; the message lists the nearest known ones.
            ValueError: no name; the message lists all.
        """
        if name is None:
            text = f"{where or self.kind} is not set; name one of {', '.join(self.names())}."
            raise ValueError(text.removeprefix(": "))
        importlib.import_module(self.package)
        if name not in self._classes:
            load_plugins(entry_point_plugins())
        if name not in self._classes:
            raise UnknownName(self.kind, name, self._classes, where)
        return self._classes[name]

    def names(self) -> list[str]:
        """All known names, sorted."""
        importlib.import_module(self.package)
        load_plugins(entry_point_plugins())
        return sorted(self._classes)

    def entries(self, installed: bool = True) -> dict[str, Entry]:
        """What is known of each class, by name, from the sources of the toolkit and of all plugins so far.

        Args:
            installed: look at the plugins of installed packages too.
        """
        plugins = [*_PLUGINS, *(entry_point_plugins() if installed else ())]
        found = {name: Entry(name, live=cls) for name, cls in self._classes.items()}
        for plugin in plugins:
            found |= _scan(plugin).get(self, {})
        return found | _built_in(self.package).get(self, {})

    def describe(self, name: str, where: str = "") -> Entry:
        """What is known of the class called `name`.

        Raises:
            UnknownName: unknown name; the message lists the nearest known ones.
        """
        found = self.entries(installed=False).get(name) or self.entries().get(name)
        if found is None:
            raise UnknownName(self.kind, name, self.entries(), where)
        return found


class UnknownName(KeyError):
    """A YAML file names a class that nobody registered."""

    def __init__(self, kind: str, name: str, known: Iterable[str], where: str = ""):
        known = sorted(known)
        spelt = {entry.casefold(): entry for entry in known}  # `SiglipLoss` is nearest to `SigLIPLoss`
        near = [spelt[at] for at in difflib.get_close_matches(str(name).casefold(), spelt, 3, 0.5)]
        self.hint = hint = f"Did you mean {', '.join(near)}?" if near else f"Known: {', '.join(known)}."
        super().__init__(f"{where}: unknown {kind} {name!r}. {hint}".removeprefix(": "))

    def __str__(self) -> str:
        return self.args[0]


@functools.cache
def _config_of_arguments(outline: type) -> type:
    """The arguments of `__init__` as keys, of a class that names its keys there."""
    fields = importlib.import_module("mmpt.config.fields")  # which is read after this module
    keys = [(name, Any, fields.option(None, "see its code")) for name in vars(outline)["__takes__"]]
    return make_dataclass(
        f"{outline.__name__}Config", keys, bases=(fields.Section,), frozen=True, kw_only=True
    )


_PLUGINS: dict[str, tuple[Source, ...]] = {}  # scanned so far, in order


def add_plugins(plugins: Iterable[str]) -> None:
    """Make the classes of plugins known by their sources; nothing is imported.

    Args:
        plugins: modules (`package.module`) and files (`my_loss.py`).

    Raises:
        ImportError: there is no such module or file, or it is not Python.
    """
    for plugin in plugins:
        sources = tuple(_sources(plugin))
        try:
            for source in sources:
                source.tree  # noqa: B018  parses it
        except SyntaxError as error:
            raise ImportError(f"plugins: {plugin}: not Python: {error}.", name=plugin) from error
        _PLUGINS[plugin] = sources


def plugins() -> tuple[str, ...]:
    """The plugins whose classes are known."""
    return tuple(_PLUGINS)


def known() -> Hashable:
    """Changes when the set of known classes does."""
    return tuple(_PLUGINS.items()), tuple(len(registry._classes) for registry in REGISTRIES.values())


def load_plugins(plugins: Iterable[str]) -> None:
    """Import the modules and files listed under `plugins:` in a YAML, so that their classes can be built."""
    for plugin in plugins:
        if plugin.endswith(".py"):
            _import_file(Path(plugin).resolve())
        else:
            importlib.import_module(plugin)


def _import_file(path: Path) -> None:
    """Import a file under its own name; processes that are started later find it on the path."""
    known = sys.modules.get(path.stem)
    if known is None:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None  # it ends in .py
        sys.modules[path.stem] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[path.stem]
            raise
        sys.path.append(str(path.parent))
    elif Path(getattr(known, "__file__", None) or "").resolve() != path:
        raise ImportError(f"plugins: {path}: a module {path.stem!r} is loaded already. Rename the file.")


@functools.cache
def entry_point_plugins() -> tuple[str, ...]:
    """Modules that installed packages name under the entry-point group `mmpt.plugins`."""
    return tuple(sorted({point.value for point in importlib.metadata.entry_points(group=PLUGIN_GROUP)}))


@functools.cache
def _built_in(package: str) -> dict[Registry, dict[str, Entry]]:
    """The same of a package of the toolkit, read once in a process."""
    return _scan(package, built_in=True)


def _scan(plugin: str, built_in: bool = False) -> dict[Registry, dict[str, Entry]]:
    """Registry -> name -> entry, of the classes that a package, module or file registers."""
    found: dict[Registry, dict[str, Entry]] = {}
    for source in _sources(plugin):
        for registry, name, class_name in _registered(source):
            found.setdefault(registry, {})[name] = Entry(
                name, source, class_name, None if built_in else plugin
            )
    return found


def _sources(plugin: str) -> Iterator[Source]:
    path = Path(plugin) if plugin.endswith(".py") else find_path(plugin)
    if path is None or not path.is_file():
        kind = "file" if plugin.endswith(".py") else "module"
        raise ImportError(f"plugins: {plugin}: no such {kind}.", name=plugin)
    try:
        yield from (
            [read_source(path.resolve(), path.stem)] if plugin.endswith(".py") else package_sources(plugin)
        )
    except UnicodeDecodeError as error:
        raise ImportError(f"plugins: {plugin}: not Python: {error}.", name=plugin) from error


# decorators (several, with comments) above a class, and REGISTRY.register("Name")(Class)
_DECORATED = re.compile(r"((?:^@.*\n|^[ )#].*\n)+)^class (\w+)", re.MULTILINE)
_DECORATOR = re.compile(r"""^@([\w.]+)\.register\(\s*(?:name=)?["']?(\w*)""", re.MULTILINE)
_CALLED = re.compile(r"""^([\w.]+)\.register\(["'](\w+)["']\)\((\w+)\)""", re.MULTILINE)


@functools.cache
def _registered(source: Source) -> list[tuple[Registry, str, str]]:
    """Registry, name and class of each `@LOSSES.register()` of a file; files are not parsed for that."""
    if ".register(" not in source.text:
        return []
    text = _without_docstring(source.text)
    found = [
        (owner, name or class_name, class_name)
        for decorators, class_name in _DECORATED.findall(text)
        for owner, name in _DECORATOR.findall(decorators)
    ]
    # the class of a call comes from another package
    found += [(owner, name, "") for owner, name, _ in _CALLED.findall(text)]
    registries = [(_registry(source, owner), name, class_name) for owner, name, class_name in found]
    return [(registry, name, class_name) for registry, name, class_name in registries if registry is not None]


def _registry(source: Source, owner: str) -> Registry | None:
    """The registry that a file calls `LOSSES`, `registry.LOSSES` or by a name of its own."""
    said = owner.split(".")[-1]
    return REGISTRIES.get(said) or REGISTRIES.get((source.imported(said) or ("", ""))[1])


def _without_docstring(text: str) -> str:
    """Docstrings of modules show classes as they are to be written."""
    quotes = text.lstrip()[:3]
    return text.lstrip()[3:].partition(quotes)[2] if quotes in ('"""', "'''") else text


TASKS = Registry("task", "mmpt.tasks", "", ("task",))
MODELS = Registry("model", "mmpt.models", "model", ("model.model_cls",))
ENCODERS = Registry(
    "encoder",
    "mmpt.models",
    "model",
    ("model.mm_encoder_cls", "model.video_encoder_cls", "model.text_encoder_cls"),
)
BACKBONES = Registry("backbone", "mmpt.backbones")
LOSSES = Registry("loss", "mmpt.losses", "loss", ("loss.loss_cls",))
META_PROCESSORS = Registry("meta processor", "mmpt.processors", "dataset", ("dataset.meta_processor",))
VIDEO_PROCESSORS = Registry("video processor", "mmpt.processors", "dataset", ("dataset.video_processor",))
TEXT_PROCESSORS = Registry("text processor", "mmpt.processors", "dataset", ("dataset.text_processor",))
ALIGNERS = Registry("aligner", "mmpt.processors", "dataset", ("dataset.aligner",))
PREDICTORS = Registry("predictor", "mmpt.evaluators", "eval", ("predictor",))
METRICS = Registry("metric", "mmpt.evaluators", "eval", ("metric",))
VECTOR_POOLS = Registry("vector pool", "mmpt.neighbours", "", ("vectorpool_cls",))
RETRIEVERS = Registry("retriever", "mmpt.neighbours", "", ("retriever_cls",))
REGISTRIES = {name: value for name, value in globals().items() if isinstance(value, Registry)}
