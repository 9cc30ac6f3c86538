"""Reading and writing YAML: YAML 1.1 as OmegaConf reads it, quickly, with errors that name the file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import yaml

from mmpt.config.fields import ConfigError
from mmpt.utils.files import atomic_write
from mmpt.utils.text import TextError, read_text, shown

MAX_DEPTH, MAX_NODES = 32, 20_000  # no project file comes near; an alias bomb has billions
MAX_TEXT, MAX_DIGITS = 1_000_000, 40  # characters of a file, digits of a number
_INT = "tag:yaml.org,2002:int"
_FLOAT = "tag:yaml.org,2002:float"
_TIMESTAMP = "tag:yaml.org,2002:timestamp"


_Safe: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Safe):
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
    if len(text) > MAX_TEXT:
        raise ConfigError(f"{source}: {len(text)} characters, expected at most {MAX_TEXT} of a YAML file.")
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_nodes(node)
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}, line {mark.line + 1}" if mark else source
        raise ConfigError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}.") from error
    finally:
        if loader is not None:
            loader.dispose()


def _check_nodes(root: yaml.Node) -> None:
    """Refuses what YAML 1.1 reads otherwise than people do, and files that unfold without end.

    Raises:
        yaml.constructor.ConstructorError: names the value and its line.
    """

    def refuse(problem: str, node: yaml.Node) -> NoReturn:
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)

    count, stack = 0, [(root, 1)]
    while stack:
        node, depth = stack.pop()
        count += 1
        if depth > MAX_DEPTH:
            refuse(f"more than {MAX_DEPTH} levels of nesting, or an alias inside of what it names", node)
        if count > MAX_NODES:
            refuse(f"more than {MAX_NODES} values, aliases unfolded", node)
        if isinstance(node, yaml.ScalarNode):
            said = _misread(node)
            if said:
                refuse(said, node)
        elif isinstance(node, yaml.MappingNode):
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    refuse("a list or a map where the name of a key is expected", key)
            stack += [(part, depth + 1) for pair in node.value for part in pair]
        else:
            stack += [(part, depth + 1) for part in node.value]


def _misread(node: yaml.ScalarNode) -> str:
    """What is wrong with a number; empty: nothing."""
    text = node.value
    if node.style or node.tag not in (_INT, _FLOAT):
        return ""
    if ":" in text:
        return f'{text} is a number to the base 60 in YAML; quote it to mean a time: "{text}"'
    if re.fullmatch(r"[-+]?0[0-9_]+", text):
        return f'{text} is an octal number in YAML; write it without the zero, or quote it: "{text}"'
    if len(text) > MAX_DIGITS:
        return f"{shown(text)} is a number of more than {MAX_DIGITS} digits"
    if re.fullmatch(r"[-+]?\.(nan|inf)", text, re.I) or (node.tag == _FLOAT and _overflows(text)):
        return f"{text} is no finite number; leave the key out, or give a number"
    return ""


def _overflows(text: str) -> bool:
    try:
        return abs(float(text.replace("_", ""))) == float("inf")
    except ValueError:  # what is tagged !!float and is none has an error of its own
        return False


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
    with atomic_write(path, "w") as file:
        file.write(text)
