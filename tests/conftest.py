"""Shared fixtures: where reference arrays and real files lie."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported: its kernels run on the CPU

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

pytest_plugins = ["tests.tiny_models", "tests.toy_project", "tests.own_videos", "tests.browser"]

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = Path(os.environ.get("MMPT_GOLDEN", ROOT / "tests" / "golden"))
REAL = Path(os.environ.get("MMPT_REAL", ROOT.parent / "shared" / "real"))


@pytest.fixture(autouse=True)
def same_weights():
    """A model that a test makes is the same in every run, and none is unlucky once in a hundred runs."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def same_loggers():
    """What a command says, and where, is not left to the tests after it."""
    loggers = [logging.getLogger(name) for name in ("mmpt", "mmpt.lines")]
    before = [(logger.level, logger.handlers, logger.propagate) for logger in loggers]
    yield
    for logger, (level, handlers, propagate) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers, logger.propagate = handlers, propagate


def project_table() -> dict[str, Any]:
    """[project] of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def golden_cases(pattern: str) -> list:
    """Paths in the golden folder that match, as pytest parameters named by file; whatever cases the folder
    holds."""
    return [pytest.param(path, id=path.stem) for path in sorted(GOLDEN.glob(pattern))]


def load_golden(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of a golden file (a name below the golden folder, or a path)."""
    path = Path(path)
    if not path.is_absolute():
        path = GOLDEN / path
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


ODD = Path(os.environ.get("MMPT_ODD", ROOT.parent / "shared" / "odd"))


def odd_file(name: str) -> Path:
    """An odd file of a kind that people have; skips the test where the folder is absent."""
    if not (ODD / name).is_file():
        pytest.skip(f"odd file {name} is not here (set MMPT_ODD to the folder that holds it)")
    return ODD / name


def real_path(*parts: str) -> Path:
    """A real annotation file or video; skips the test where the folder is absent."""
    path = REAL.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"real file {'/'.join(parts)} is not here (set MMPT_REAL to the folder that holds it)")
    return path


@pytest.fixture(scope="session")
def toy_world(tmp_path_factory) -> Path:
    """A tiny synthetic world on disk, in the formats of the real data sets."""
    from mmpt_cli.make_data import main

    folder = tmp_path_factory.mktemp("world") / "toy"
    main(["--out", str(folder), "--size", "tiny"])
    return folder
