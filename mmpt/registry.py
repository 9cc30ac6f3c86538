"""Class names in YAML files -> classes.

Every pluggable class announces itself under the name users write in YAML; nothing else can be named there.

    @LOSSES.register()
    class MMContraLoss(Loss): ...

    LOSSES.get("MMContraLoss")
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable
from typing import TypeVar

C = TypeVar("C", bound=type)


class Registry:
    """Names of one kind of class.

    Args:
        kind: what the classes are, for error messages ("loss").
        package: module imported on first look-up; importing it registers the built-in classes.
    """

    def __init__(self, kind: str, package: str):
        self.kind = kind
        self.package = package
        self._classes: dict[str, type] = {}

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

    def get(self, name: str, where: str = "") -> type:
        """The class called `name`.

        Args:
            name: as YAML files spell it.
            where: file and key that say so, for the message.

        Raises:
            UnknownName: unknown name; the message lists the nearest known ones.
        """
        importlib.import_module(self.package)
        if name not in self._classes:
            raise UnknownName(self.kind, name, self._classes, where)
        return self._classes[name]

    def names(self) -> list[str]:
        """All known names, sorted."""
        importlib.import_module(self.package)
        return sorted(self._classes)


class UnknownName(KeyError):
    """A YAML file names a class that nobody registered."""

    def __init__(self, kind: str, name: str, known: Iterable[str], where: str = ""):
        known = sorted(known)
        near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
        hint = f"Did you mean {', '.join(near)}?" if near else f"Known: {', '.join(known)}."
        super().__init__(f"{where}: unknown {kind} {name!r}. {hint}".removeprefix(": "))

    def __str__(self) -> str:
        return self.args[0]


def load_plugins(modules: Iterable[str]) -> None:
    """Import the modules listed under `plugins:` in a YAML, so that their classes can be named in it."""
    for module in modules:
        importlib.import_module(module)


TASKS = Registry("task", "mmpt.tasks")
MODELS = Registry("model", "mmpt.models")
ENCODERS = Registry("encoder", "mmpt.models")
BACKBONES = Registry("backbone", "mmpt.backbones")
LOSSES = Registry("loss", "mmpt.losses")
META_PROCESSORS = Registry("meta processor", "mmpt.processors")
VIDEO_PROCESSORS = Registry("video processor", "mmpt.processors")
TEXT_PROCESSORS = Registry("text processor", "mmpt.processors")
ALIGNERS = Registry("aligner", "mmpt.processors")
PREDICTORS = Registry("predictor", "mmpt.evaluators")
METRICS = Registry("metric", "mmpt.evaluators")
VECTOR_POOLS = Registry("vector pool", "mmpt.neighbours")
RETRIEVERS = Registry("retriever", "mmpt.neighbours")
