"""docs/audit.md: its files are made, its commands run and say what the page says."""

from __future__ import annotations

import json
import re

import pytest

from mmpt_cli.main import main
from tests.conftest import ROOT

PAGE = (ROOT / "docs/audit.md").read_text()
COMMANDS = re.findall(r"^mmpt (audit .*)$", PAGE, re.MULTILINE)
SUSPECTS = ([], ["postprocessing"], ["similarity"], ["rerank"], ["postprocessing", "gallery"])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The page's files, in a folder of their own."""
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1], {})
    return folder


@pytest.mark.parametrize(("words", "suspects"), list(zip(COMMANDS, SUSPECTS, strict=True)), ids=str)
def test_a_command_of_the_page_names_what_the_page_made(files, monkeypatch, capsys, words, suspects):
    monkeypatch.chdir(files)
    assert main([*words.split(), "--json", "--samples", "50"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [departure["family"] for departure in found["named"]] == suspects
    if "--out" in words:
        assert {path.name for path in (files / "audit").iterdir()} == {
            "audit.txt",
            "audit.json",
            "audit.png",
            "audit.svg",
        }


def test_a_file_that_does_not_exist_is_named(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="gone.npy does not exist"):
        main(["audit", "--claim", "R1=50", "--scores", "gone.npy"])
