"""Packages that only some features need, or that are slow to import."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]


def optional_import(module: str, extra: str | None = None) -> ModuleType:
    """Import `module`, or say how to install what brings it.

    Args:
        module: dotted module name ("av.video").
        extra: name of the pip extra that lists its package ("video"); None: the base of mmpt does.

    Raises:
        ImportError: the module is not installed, or cannot be loaded; the message says why.
    """
    package = module.split(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        there = f"{package!r} is installed, but " if missing.split(".")[0] != package else ""
        raise ImportError(
            f"{there}this needs the package {missing!r}, which is not there. Install it: "
            f"{install_line(extra, missing)}"
        ) from error
    except (ImportError, OSError, RuntimeError) as error:  # a compiled part that does not fit this machine
        raise ImportError(
            f"{package!r} is installed, but cannot be loaded here: {_reason(error)}. Or do without it."
        ) from error


def pretrained(loader: Any, name: str, key: str = "", needed: str = "config.json", **options: Any) -> Any:
    """`loader.from_pretrained(name)` of transformers.

    Args:
        loader: its class.
        name: hub id or folder.
        key: of a project file that says the name.
        needed: files of a folder that holds it.
        options: further arguments.

    Raises:
        FileNotFoundError: it is neither there nor can be fetched.
    """
    try:
        return loader.from_pretrained(name, **options)
    except OSError as error:
        raise _not_found(name, key, needed, error) from error


def pretrained_file(name: str, files: Sequence[str], key: str, needed: str = "", cure: str = "") -> Path:
    """The first of some files that a folder has, or a model of the hub.

    Args:
        name: hub id or folder.
        files: names, the preferred one first.
        key: of a project file that says the name.
        needed: what the folder should hold; "": the files.
        cure: what else can be done.

    Raises:
        FileNotFoundError: none is there, nor can be fetched.
    """
    needed = needed or " or ".join(files[:2])
    if Path(name).is_dir():
        for file in files:
            if Path(name, file).is_file():
                return Path(name, file)
        raise FileNotFoundError(
            f"{key}={name!r}: the folder has no {' and no '.join(files[:2])}. {cure}".strip()
        )
    hub = optional_import("huggingface_hub")
    for file in files:
        try:
            return Path(hub.hf_hub_download(name, file))
        except (OSError, ValueError) as error:
            reason = error
    raise _not_found(name, key, needed, reason, cure) from reason


def _not_found(name: str, key: str, needed: str, error: Exception, cure: str = "") -> FileNotFoundError:
    said, why = f"{key}{'=' if key else ''}{name!r}", _reason(error)
    if Path(name).is_dir():
        return FileNotFoundError(f"{said} cannot be read ({why}). Such a folder holds {needed}.")
    return FileNotFoundError(
        f"{said} is neither a folder with {needed} nor a model that can be downloaded now ({why}). Give the "
        f"path of a folder that holds {needed}, or check the network. {cure}".strip()
    )


def install_line(extra: str | None, module: str = "") -> str:
    """The command that installs what an extra lists, or the one package of it that brings `module`.

    It names the packages themselves: mmpt is on no public index, so asking one for an extra of mmpt would
    find nothing. Where mmpt was never installed, or before it had that extra, the checkout is named.
    """
    packages = requirements(extra)
    stem = module.split(".")[0].lower()
    fitting = [package for package in packages if stem and package.lower().replace("-", "_").startswith(stem)]
    wanted = " ".join(f"'{package}'" for package in fitting or packages)
    return "pip install " + (wanted or f"-e '{CHECKOUT}{f'[{extra}]' * (extra is not None)}'")


def requirements(extra: str | None) -> list[str]:
    """What an extra lists ("av<19,>=14"), or with None the base; empty where mmpt was never installed."""
    from importlib import metadata  # slow to import, and only errors need it

    try:
        lines = metadata.requires("mmpt") or []
    except metadata.PackageNotFoundError:
        return []
    if extra is None:
        return [line for line in lines if ";" not in line]
    marker = re.compile(rf"extra == ['\"]{extra.replace('_', '-')}['\"]")
    return [line.split(";")[0].strip() for line in lines if marker.search(line)]


def _reason(error: Exception) -> str:
    """Which system libraries are missing, where a long message names them; otherwise its first line."""
    if libraries := sorted(set(re.findall(r"(\S+): cannot open shared object file", str(error)))):
        return f"system libraries not found: {', '.join(libraries)}"
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
