"""The code keeps to the style that pyproject.toml states."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize("check", [["check"], ["format", "--check"]], ids=["lint", "format"])
def test_the_linter_finds_nothing(check):
    pytest.importorskip("ruff")
    found = subprocess.run(
        [sys.executable, "-m", "ruff", *check, "--quiet", "--no-cache", "."],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_type_checker_finds_nothing(tmp_path):
    pytest.importorskip("mypy")
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--cache-dir", str(tmp_path)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
