"""The lines that install fairseq; nothing is installed."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest

from mmpt.config import ConfigError
from mmpt.launch import install_fairseq as module
from mmpt.launch.install_fairseq import FAIRSEQ, commands, install_fairseq
from tests.conftest import ROOT


def recorder(code=0):
    calls = []

    def run(line, env, check):
        calls.append((line, env["READTHEDOCS"]))
        return subprocess.CompletedProcess(line, code)

    return calls, run


def test_the_last_line_builds_fairseq_alone_and_beside_the_torch_that_is_there():
    last = commands("python")[-1]
    assert last == "python -m pip install --no-cache-dir --no-deps --no-build-isolation".split() + [FAIRSEQ]


def test_what_fairseq_imports_comes_first():
    line = commands()[-2]
    assert any(word.startswith("hydra-core") for word in line)
    assert not any(word.startswith(("torch", "fairseq")) for word in line)


def test_all_lines_run_in_this_environment_without_compiled_parts():
    calls, run = recorder()
    install_fairseq(run)
    assert [line for line, _ in calls] == commands(sys.executable)
    assert {variable for _, variable in calls} == {"1"}


def test_the_original_fairseq_makes_room(monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda name: "0.12.2")
    assert commands("python")[0] == "python -m pip uninstall -y fairseq".split()
    assert len(commands("python")) == 3


def test_a_line_that_fails_is_shown_and_ends_it():
    calls, run = recorder(code=1)
    with pytest.raises(ConfigError, match="exit code 1 from: .* -m pip install "):
        install_fairseq(run)
    assert len(calls) == 1


@pytest.mark.parametrize("missing", ["torch", "pip"])
def test_an_environment_without_torch_or_pip_is_told_so(monkeypatch, missing):
    there = module.importlib.util.find_spec
    monkeypatch.setattr(
        module.importlib.util, "find_spec", lambda name: None if name == missing else there(name)
    )
    with pytest.raises(ConfigError, match=missing):
        install_fairseq(lambda *args, **options: pytest.fail("ran"))


def test_it_is_the_release_that_the_set_up_installs():
    assert FAIRSEQ in (ROOT / "requirements-fairseq.txt").read_text().splitlines()
    assert f"{' '.join(module.OPTIONS)} {FAIRSEQ}" in (ROOT / "docs/install.md").read_text()
