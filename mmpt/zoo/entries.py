"""The list of known weights: what is published, and what this machine adds.

The file that comes with mmpt is `published.yaml`; its head says what an entry holds. What `add` notes goes to
`pretrained_models/models.yaml` of the current directory, or to the file that MMPT_MODELS names, and precedes.
Paths are relative to the current directory.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mmpt.config.fields import Section, option
from mmpt.config.yamlfile import ConfigError, read_yaml
from mmpt.utils.files import atomic_write

PUBLISHED = Path(__file__).parent / "published.yaml"
VARIABLE, OWN = "MMPT_MODELS", "pretrained_models/models.yaml"
_NAME = re.compile(r"[\w.-]+")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json")


@dataclass(frozen=True, kw_only=True)
class Entry(Section):
    """Weights under a name; `published.yaml` describes the keys."""

    name: str = ""
    about: str = option("", "one line")
    kind: str = option("model", "model or backbone", one_of=("model", "backbone"))
    page: str = option("", "where it is published")
    licence: str = option("not stated", "of the weights")
    trained_on: str = option("", "data")
    files: Mapping[str, str] = option({}, "path here -> address, or empty")
    sha256: Mapping[str, str] = option({}, "path here -> checksum")
    hub: str | None = option(None, "hub id")
    project: str | None = option(None, "project file that reads it")
    backbone: str | None = option(None, "whose features it reads")
    made_by: str | None = option(None, "command that makes it")

    def missing(self) -> list[str]:
        """Its files that are not here."""
        return [path for path in self.files if not Path(path).is_file()]

    @property
    def state(self) -> str:
        """In a word or two."""
        if self.hub and not self.files:
            return "on the hub"
        return "not here" if self.missing() else "here"

    @property
    def source(self) -> tuple[str, str | None]:
        """Project file, folder or hub id, and the checkpoint of a project file: what `from_pretrained` takes.

        Raises:
            ValueError: it is a backbone.
            FileNotFoundError: its files are not here.
        """
        if self.kind != "model":
            raise ValueError(
                f"{self.name!r} is a backbone: it gives features, and compares nothing with text."
            )
        if self.hub:
            return self.hub, None
        if absent := self.missing():
            raise FileNotFoundError(f"the model {self.name!r} is not here: no {absent[0]}. {self.how()}")
        file = next(iter(self.files))
        return (str(Path(file).parent), None) if self.project is None else (self.project, file)

    def how(self) -> str:
        """A sentence on how to get it."""
        if self.made_by:
            return f"Make it: {self.made_by}"
        return f"Get it: mmpt models get {self.name}"


def own_list() -> Path:
    """The file of what this machine adds."""
    return Path(os.environ.get(VARIABLE) or OWN)


def known() -> dict[str, Entry]:
    """Name -> entry, those of this machine first.

    Raises:
        ConfigError: a wrong entry; names file, key, and what was expected.
    """
    own = _read(own_list()) if own_list().is_file() else {}
    return own | {name: entry for name, entry in _read(PUBLISHED).items() if name not in own}


def find(name: str) -> Entry:
    """The entry of a name.

    Raises:
        KeyError: there is none; says the nearest.
    """
    entries = known()
    if name not in entries:
        near = difflib.get_close_matches(name, entries, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else "`mmpt models list` shows all."
        raise KeyError(f"no model is called {name!r}. {hint}")
    return entries[name]


def remedy(path: str | Path) -> str:
    """The command that brings a missing weights file, for the end of an error message."""
    path = Path(path)
    candidates = [
        (entry, Path(file))
        for entry in known().values()
        for file in entry.files
        if Path(file).name == path.name
    ]
    for entry, file in candidates:
        if file.resolve() == path.resolve():
            return f"{entry.how()}."
    if len({entry.name for entry, _ in candidates}) == 1:  # another folder, a name of its own
        return f"{candidates[0][0].how()} (it goes to {candidates[0][1]})."
    return "`mmpt models list` shows which weights are known, `mmpt models get NAME` fetches them."


def entry_of(weights: str, project: str | None = None, **facts: Any) -> Entry:
    """The entry for weights that are here, or on the hub.

    Args:
        weights: checkpoint, folder of save_pretrained or of transformers, or hub id.
        project: project file that reads a checkpoint.
        facts: further keys of the entry.

    Raises:
        ValueError: `weights` is none of these, or a checkpoint comes without its project file.
    """
    path = Path(weights)
    if path.is_dir():
        file = next((path / name for name in _WEIGHTS if (path / name).is_file()), None)
        if file is None:
            raise ValueError(f"{path}: a folder without weights ({', '.join(_WEIGHTS)}).")
        return Entry(files={_noted(file): ""}, **facts)
    if path.is_file():
        if project is None:
            raise ValueError(
                f"{path}: a checkpoint needs the project file that reads it; give --project FILE."
            )
        return Entry(files={_noted(path): ""}, project=project, **facts)
    if weights.count("/") == 1 and not path.suffix:
        return Entry(hub=weights, **facts)
    raise ValueError(f"{path}: no such file or folder, and no hub id (OWNER/NAME).")


def add(entry: Entry, replace: bool = False) -> Path:
    """Notes a model on this machine; the file it is written to.

    Raises:
        ValueError: the name is taken or is none, or what is named is not there.
    """
    if not _NAME.fullmatch(entry.name):
        raise ValueError(f"{entry.name!r} is no name: letters, digits, '-', '_' and '.' make one.")
    path = own_list()
    own = _read(path) if path.is_file() else {}
    if entry.name in own and not replace:
        raise ValueError(f"{path} has a model {entry.name!r}. Choose another name, or --replace it.")
    if absent := entry.missing():
        raise FileNotFoundError(f"{absent[0]}: no such file; a model is added when it is there.")
    if not (entry.files or entry.hub):
        raise ValueError(f"{entry.name}: neither a file nor a hub id.")
    entries = own | {entry.name: entry}
    with atomic_write(path, "w") as file:
        yaml.safe_dump({name: _written(each) for name, each in entries.items()}, file, sort_keys=False)
    return path


def _noted(path: Path) -> str:
    """As the list has it: from here on, or in a list that several folders share, from the root on."""
    return str(path.absolute()) if os.environ.get(VARIABLE) else os.path.relpath(path)


def _read(path: Path) -> dict[str, Entry]:
    entries = {}
    for name, tree in read_yaml(path).items():
        if not isinstance(tree, Mapping):
            raise ConfigError(f"{path}: {name}: expected `key: value` lines, got {tree!r}.")
        entries[name] = dataclasses.replace(Entry.from_yaml(tree, f"{path}: {name}"), name=name)
    return entries


def _written(entry: Entry) -> dict[str, object]:
    default = Entry()
    values = {name: getattr(entry, name) for name in Entry.yaml_names()}
    return {
        name: dict(value) if isinstance(value, Mapping) else value
        for name, value in values.items()
        if value != getattr(default, name)
    }
