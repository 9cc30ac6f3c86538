"""Errors raised on purpose end a command as one message; bugs keep their traceback."""

import subprocess
import sys

import pytest

DELIBERATE = "from mmpt.registry import LOSSES; LOSSES.get('MMContraLos')"
BUG = "import json; json.loads('{')"


@pytest.mark.parametrize("code, is_short", [(DELIBERATE, True), (BUG, False)])
def test_only_errors_raised_by_mmpt_lose_their_traceback(code, is_short):
    done = subprocess.run(
        [sys.executable, "-c", f"from mmpt.utils.log import short_errors; short_errors(); {code}"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert ("Traceback" not in done.stderr) == is_short
    assert done.stderr.startswith("error: unknown loss 'MMContraLos'. Did you mean MMContraLoss") == is_short


def test_the_traceback_can_be_asked_for(monkeypatch):
    monkeypatch.setenv("MMPT_TRACEBACK", "1")
    done = subprocess.run(
        [sys.executable, "-c", f"from mmpt.utils.log import short_errors; short_errors(); {DELIBERATE}"], capture_output=True, text=True
    )
    assert "Traceback" in done.stderr
