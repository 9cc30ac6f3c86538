"""Copies of project files, to edit."""

from __future__ import annotations

from pathlib import Path

from mmpt.config.load import recursive_config
from mmpt.config.yamlfile import ConfigError, write_yaml


def copy_project(source: str | Path, target: str | Path, whole: bool = False) -> None:
    """Write a project file that starts where another one is.

    Args:
        source: the other file.
        target: file to write.
        whole: write all keys, includes merged; otherwise an `includes:` line, under which keys can be
            changed.

    Raises:
        ConfigError: `source` cannot be read, or `target` is there already.
    """
    source, target = Path(source), Path(target)
    if target.exists():
        raise ConfigError(f"{target} exists already. Choose another name, or remove it.")
    tree = recursive_config(source)
    header = f"Like {source}. What it says in full: mmpt config {target}"
    if not whole:
        tree = {"includes": str(source)}
    write_yaml(target, tree, header)
