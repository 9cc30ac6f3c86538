"""Reading and writing YAML: YAML 1.1 as OmegaConf reads it, quickly, with errors that name the file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mmpt.config.fields import ConfigError
from mmpt.utils.text import TextError, read_text

_FLOAT = "tag:yaml.org,2002:float"
_TIMESTAMP = "tag:yaml.org,2002:timestamp"


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """Safe loader: `1e-5` is a number, dates stay text, a key given twice is an error."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key_node.value!r} is given twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    _FLOAT, re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"), list("-+.0123456789")
)


def parse_yaml(text: str, source: str) -> Any:
    """The value that `text` describes.

    Raises:
        ConfigError: not valid YAML; the message names `source` and the line.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}, line {mark.line + 1}" if mark else source
        raise ConfigError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}.") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """The map in a YAML file; an empty file is an empty map.

    Raises:
        ConfigError: absent, unreadable, not YAML, or not a map.
    """
    try:
        text = read_text(path)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: no such file (paths are relative to the current directory, {Path.cwd()})."
        ) from error
    except TextError as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read as text: {error}.") from error
    tree = parse_yaml(text, str(path))
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected `key: value` lines at the top level, got {type(tree).__name__}.")
    return tree


def write_yaml(path: Path, tree: Mapping[str, Any], header: str = "") -> None:
    """Write `tree` in its own order below an optional comment; readers see the old file or the new one, never
    half of it."""
    text = (f"# {header}\n" if header else "") + yaml.safe_dump(dict(tree), sort_keys=False, width=140)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)
