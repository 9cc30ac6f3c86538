"""YAML files -> one plain dict (`recursive_config`) -> typed, frozen dataclasses (`load_config`).

Project files that come with mmpt are found by name from any folder (`find_project`). Paths written in a file
are relative to the current directory, or to the file where they start with `./`. A file that a pipeline
derives need not exist: its pipeline says what is in it (`pipeline_of`).
"""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmpt.config.check import examine
from mmpt.config.fields import Problem
from mmpt.config.follow import completed
from mmpt.config.rundir import to_dict
from mmpt.config.schema import Config
from mmpt.config.yamlfile import ConfigError, parse_yaml, read_yaml
from mmpt.historic.tempclr_files import translated

# A wheel holds the project files in `mmpt/shipped`; in a checkout they lie beside the package.
_PACKAGE = Path(__file__).resolve().parent.parent
SHIPPED = next(folder for folder in (_PACKAGE / "shipped", _PACKAGE.parent) if folder.is_dir())


class Layer(NamedTuple):
    """What one file (or the command line) says."""

    source: str
    tree: dict[str, Any]


def find_project(path: str | Path) -> Path:
    """The file or folder that a name such as `projects/toy/norton.yaml` stands for.

    Args:
        path: an existing path, relative to the current directory or absolute, stands for itself; another
            relative one for what mmpt ships under that name.

    Returns:
        `path` itself where neither is there, for the error of whoever reads it.
    """
    path = Path(path)
    shipped = SHIPPED / path
    return path if path.exists() or not shipped.exists() else shipped


def recursive_config(path: str | Path) -> dict[str, Any]:
    """The file merged over everything it includes, as a plain dict without the `includes` key.

    Maps are merged; lists and scalars replace what the included file says, and so does an explicit null. A
    `loss:` section that names another `loss_cls` replaces the included one, whose keys were the other loss's.

    Raises:
        ConfigError: a file is missing, unreadable, or includes itself.
    """
    return _merged(_layers(find_project(path), ()))


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """A project file, checked: every key known, every value of the right type, values that must fit together
    fitting.

    Args:
        path: the YAML file.
        overrides: `section.key=value` texts merged last; values are read as YAML.

    Raises:
        ConfigError: lists all that is wrong, each with file, key, what was expected and what was found.
    """
    return _without_errors(*examined(path, overrides))


def examined(
    config: str | Path | Config | Mapping[str, Any], overrides: Iterable[str] = ()
) -> tuple[Config, list[Problem]]:
    """A project file, what is in one, or a config, typed as far as it can be read, and all its problems.

    Raises:
        ConfigError: a file is missing, or not YAML.
    """
    if isinstance(config, str | Path):
        layers, source = _layers(find_project(config), ()), str(config)
    else:
        source = config.source if isinstance(config, Config) else "config"
        layers = [Layer(source, to_dict(config) if isinstance(config, Config) else dict(config))]
    own = {layers[-1].source, "--set"}
    layers += [Layer("--set", _override(text)) for text in overrides]
    tree = completed(translated(_merged(layers), source))
    typed, problems = examine(tree, source, functools.partial(_origin, layers))
    # that a class here does not read what an included file says for another is how files are shared
    return typed, [problem for problem in problems if problem.level != "note" or problem.file in own]


def _without_errors(config: Config, problems: list[Problem]) -> Config:
    errors = [problem for problem in problems if problem.level == "error"]
    if errors:
        raise ConfigError(errors)
    return config


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """A new dict: `over` on top of `base`, maps merged key by key, anything else replaced; so is a map that
    names another `loss_cls`."""
    merged = copy.deepcopy(dict(base))
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, dict) and not _swaps_loss(below, value):
            merged[key] = merge(below, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _swaps_loss(below: Mapping[str, Any], over: Mapping[str, Any]) -> bool:
    """Whether keys of `below` have lost their meaning, because they belong to a loss that `over` exchanges
    for another."""
    return "loss_cls" in below and over.get("loss_cls", below["loss_cls"]) != below["loss_cls"]


def _merged(layers: list[Layer]) -> dict[str, Any]:
    return functools.reduce(merge, (layer.tree for layer in layers), {})


def pipeline_of(path: str | Path) -> Path | None:
    """The pipeline file that derives a project file: `projects/retri/videoclip.yaml` for
    `projects/retri/videoclip/how2.yaml`; None where none lists it."""
    folder = Path(path).parent
    pipeline = find_project(folder.with_suffix(".yaml")) if folder.name else folder
    if not pipeline.is_file():
        return None
    tree = recursive_config(pipeline)
    named = isinstance(tree.get("base_dir"), str) and _groups_with(tree, Path(path).name)
    return pipeline if named else None


def derived_layers(pipeline: Path, name: str) -> list[Layer]:
    """What a pipeline derives under a name: its template with the changes of its task group, the folder
    of the template below runs/ renamed to its own."""
    tree = recursive_config(pipeline)
    base, project = tree["base_dir"], tree.get("project_dir") or pipeline.stem
    layers = _layers(find_project(Path("projects") / base / name), ())
    for group in _groups_with(tree, name):
        changes = {key: value for key, value in group.items() if key != "task_list"}
        layers.append(Layer(str(pipeline), changes))
    return [
        Layer(layer.source, rewrite_dirs(layer.tree, f"runs/{base}", f"runs/{project}")) for layer in layers
    ]


def rewrite_dirs(tree: Mapping[str, Any], old: str, new: str) -> dict[str, Any]:
    """`old` -> `new` in every text of nested maps that starts with `old`; lists stay."""

    def rewrite(value: Any) -> Any:
        if isinstance(value, Mapping):
            return rewrite_dirs(value, old, new)
        return value.replace(old, new) if isinstance(value, str) and value.startswith(old) else value

    return {key: rewrite(value) for key, value in tree.items()}


def _groups_with(tree: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """The task groups of a pipeline that list a file name."""
    groups = tree.get("task_group")
    groups = groups.values() if isinstance(groups, Mapping) else ()
    return [
        group for group in groups if isinstance(group, Mapping) and name in (group.get("task_list") or ())
    ]


def _layers(path: Path, including: tuple[Path, ...]) -> list[Layer]:
    """The files that make up `path`, innermost include first."""
    if not path.is_file() and (pipeline := pipeline_of(path)):
        return derived_layers(pipeline, path.name)
    if path.resolve() in including:
        chain = " -> ".join(str(file) for file in (*including, path.resolve()))
        raise ConfigError(f"{path}: includes itself: {chain}. Remove one of these `includes`.")
    if not path.exists() and (known := _of_that_name(path.name)):
        raise ConfigError(
            f"{path}: no such file (paths are relative to the current directory, {Path.cwd()}). Of that name "
            f"there are {', '.join(known)}."
        )
    tree = read_yaml(path)
    included = tree.pop("includes", None)
    tree = {key: _beside(path, value) for key, value in tree.items()}
    if included is None:
        return [Layer(str(path), tree)]
    if not isinstance(included, str):
        raise ConfigError(
            f"{path}: includes: expected one path, got {included!r}. Chain files instead: each may "
            "include one other."
        )
    return [*_layers(_find_include(included, path), (*including, path.resolve())), Layer(str(path), tree)]


def _of_that_name(name: str) -> list[str]:
    """Shipped project files of a name, such as those that stood in configs/ in another release."""
    return sorted(str(path.relative_to(SHIPPED)) for path in (SHIPPED / "projects").rglob(name))


def _beside(path: Path, value: Any) -> Any:
    """The value with every text that starts with `./` put into the folder of the file that says it."""
    if isinstance(value, dict):
        return {key: _beside(path, inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_beside(path, inner) for inner in value]
    return (
        os.path.join(path.parent, value[2:]) if isinstance(value, str) and value.startswith("./") else value
    )


def _find_include(included: str, path: Path) -> Path:
    """Relative to the current directory, else to the including file's folder or one above it, nearest first,
    else what mmpt ships under that name; `./NAME` is beside the including file alone."""
    if included.startswith("./"):
        places: tuple[Path, ...] = (path.parent,)
    else:
        places = (Path(), *path.resolve().parents, SHIPPED)
    for folder in places:
        if (folder / included).is_file() or pipeline_of(folder / included):
            return folder / included
    raise ConfigError(
        f"{path}: includes: {included} does not exist, neither below the current directory ({Path.cwd()}) "
        f"nor below {path.resolve().parent} or a folder above it, and mmpt ships no file of that name."
    )


def _override(text: str) -> dict[str, Any]:
    """`a.b=1` -> {"a": {"b": 1}}."""
    name, equals, value = text.partition("=")
    if not equals or not all(name.split(".")):
        raise ConfigError(
            f"--set {text}: expected section.key=value, for example fairseq.optimization.max_epoch=1."
        )
    tree = parse_yaml(value, f"--set {name}")
    for part in reversed(name.split(".")):
        tree = {part: tree}
    return tree


def _origin(layers: list[Layer], name: str) -> str:
    """The file that has the last word on the dotted key `name`."""
    for layer in reversed(layers):
        node: Any = layer.tree
        for part in name.split("."):
            node = (
                {str(key): value for key, value in node.items()}.get(part, layers)
                if isinstance(node, Mapping)
                else layers
            )
        if node is not layers:
            return layer.source
    return layers[-1].source


def with_origins(path: str | Path, overrides: Iterable[str] = ()) -> dict[str, tuple[Any, str]]:
    """Dotted key -> its value and the file (or "--set") that has the last word on it, for every value set."""
    layers = _layers(find_project(path), ())
    layers += [Layer("--set", _override(text)) for text in overrides]
    return {key: (value, _origin(layers, key)) for key, value in leaves(_merged(layers))}


def files_of(path: str | Path) -> list[str]:
    """A project file and all that it includes, directly or not."""
    return [layer.source for layer in _layers(find_project(path), ())]


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of all that stands in nested maps; an empty map is a value."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def as_config(config: str | Path | Config | Mapping[str, Any], overrides: Iterable[str] = ()) -> Config:
    """Whatever a call was given as a checked config: the path of a project file, what is in one, or a config.

    Raises:
        ConfigError: lists all that is wrong.
    """
    overrides = list(overrides)
    if isinstance(config, Config) and not overrides:
        return config
    return _without_errors(*examined(config, overrides))
