"""What the launcher says is on stdout and stderr, as in a command."""

import pytest

from mmpt_cli.options import speak


@pytest.fixture(autouse=True)
def _speaks():
    speak()
