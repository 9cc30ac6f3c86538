"""fairseq put into the environment that runs: the same lines on a CPU and on a CUDA machine, no compiler."""

from __future__ import annotations

import importlib.util
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata

from mmpt.config import ConfigError
from mmpt.utils.optional import requirements

FAIRSEQ = (
    "fairseq-fixed==0.12.3.1"  # imports as `fairseq`; also in requirements-fairseq.txt, which says why so
)
BUILD = ("setuptools<82", "wheel")
OPTIONS = ("--no-cache-dir", "--no-deps", "--no-build-isolation")
PURE = {"READTHEDOCS": "1"}  # leaves out its compiled parts, which mmpt never uses


def commands(python: str = sys.executable) -> list[list[str]]:
    """What to run, one after the other, each with `PURE` in its environment."""
    pip = [python, "-m", "pip"]
    lines = [
        [*pip, "install", *BUILD, *requirements("train")],  # what builds it, what it imports
        [*pip, "install", *OPTIONS, FAIRSEQ],
    ]
    # Both would own the folder `fairseq`; the original cannot be imported on current Pythons.
    return [[*pip, "uninstall", "-y", "fairseq"], *lines] if _is_installed("fairseq") else lines


def install_fairseq(run: Callable[..., subprocess.CompletedProcess] = subprocess.run) -> None:
    """Install fairseq; pip's output is the user's.

    Raises:
        ConfigError: torch or pip is missing, or a line failed.
    """
    if importlib.util.find_spec("torch") is None:
        raise ConfigError("fairseq is built beside torch, which is not installed here: pip install torch")
    if importlib.util.find_spec("pip") is None:
        raise ConfigError(f"this environment has no pip. Add it: {sys.executable} -m ensurepip")
    for line in commands():
        code = run(line, env={**os.environ, **PURE}, check=False).returncode
        if code:
            raise ConfigError(f"exit code {code} from: {shlex.join(line)}")


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
