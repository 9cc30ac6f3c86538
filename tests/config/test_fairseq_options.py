"""The list of fairseq's options is that of the installed fairseq."""

from __future__ import annotations

import importlib.util

import pytest

from mmpt.config.fairseq_options import OPTIONS
from tests.conftest import ROOT


def test_the_list_is_what_fairseq_train_takes():
    pytest.importorskip("fairseq")
    spec = importlib.util.spec_from_file_location("fairseq_options", ROOT / "scripts/fairseq_options.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.options() == OPTIONS, "run: python scripts/fairseq_options.py"
