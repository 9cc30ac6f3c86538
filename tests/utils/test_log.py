"""Errors raised on purpose end a command as one message; bugs keep their traceback."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

DELIBERATE = "from mmpt.registry import LOSSES; LOSSES.get('MMContraLos')"
BUG = "import json; json.loads('{')"
FOLDER_AS_FILE = "open('/')"  # an OSError with a file name, yet no file that is missing


def test_a_command_that_cannot_go_on_says_so_in_one_line(tmp_path):
    command = [sys.executable, "-m", "mmpt_cli.compare_runs", str(tmp_path), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (
        done.returncode == 1
        and done.stderr.startswith(f"error: {tmp_path}/per_query.npz does not exist")
        and done.stderr.count("\n") == 1
    )


@pytest.mark.parametrize("code, is_short", [(DELIBERATE, True), (BUG, False), (FOLDER_AS_FILE, False)])
def test_only_errors_raised_by_mmpt_lose_their_traceback(code, is_short):
    done = subprocess.run(
        [sys.executable, "-c", f"from mmpt.utils.log import short_errors; short_errors(); {code}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert ("Traceback" not in done.stderr) == is_short
    assert done.stderr.startswith("error: unknown loss 'MMContraLos'. Did you mean MMContraLoss") == is_short


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    code = "from mmpt.utils.log import short_errors; short_errors(); open('data/gone.lst')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"error: data/gone.lst: no such file or folder (looked for in {tmp_path})\n"


def test_the_traceback_can_be_asked_for(monkeypatch):
    monkeypatch.setenv("MMPT_TRACEBACK", "1")
    done = subprocess.run(
        [sys.executable, "-c", f"from mmpt.utils.log import short_errors; short_errors(); {DELIBERATE}"],
        capture_output=True,
        text=True,
    )
    assert "Traceback" in done.stderr
