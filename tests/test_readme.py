"""Every launcher command that the pages show is one the launcher takes, and every file they link exists."""

import re
import shlex

import pytest

import locallaunch
from tests.conftest import ROOT

PAGES = ["README.md", "pretraining.md", "endtask.md"]
TEXTS = {page: (ROOT / page).read_text() for page in PAGES}
COMMANDS = sorted(
    {
        re.sub(r"\s+#.*", "", line).strip()
        for text in TEXTS.values()
        for line in re.findall(r"^python (locallaunch\.py .*)$", text, re.M)
    }
)
LINKS = [(page, link) for page, text in TEXTS.items() for link in re.findall(r"\]\(([\w./-]+)\)", text)]


@pytest.mark.parametrize("command", [command for command in COMMANDS if "\\" not in command])
def test_a_launcher_command_of_the_pages_has_a_dry_run(command, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    command = command.replace("FILE", "projects/retri/norton/how2_pretrain.yaml")
    words = [word for word in shlex.split(command)[1:] if word != "--dryrun"]
    assert locallaunch.main([*words, "--dryrun"]) == 0
    assert "launching" in capsys.readouterr().out


@pytest.mark.parametrize("page, link", LINKS)
def test_a_linked_file_exists(page, link):
    assert (ROOT / link).exists(), f"{page} links {link}"
