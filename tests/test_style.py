"""The code keeps to the style that pyproject.toml states."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytest.importorskip("ruff")


@pytest.mark.parametrize("check", [["check"], ["format", "--check"]], ids=["lint", "format"])
def test_the_linter_finds_nothing(check):
    found = subprocess.run(
        [sys.executable, "-m", "ruff", *check, "--quiet", "--no-cache", "."],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr
