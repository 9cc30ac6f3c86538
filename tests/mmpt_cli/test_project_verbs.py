"""mmpt list, config, copy and check."""

import json

import pytest

from mmpt.config import load_config
from mmpt_cli.list import KINDS
from mmpt_cli.main import main
from tests.conftest import ROOT

NORTON = "projects/retri/norton/how2_pretrain.yaml"


@pytest.fixture(autouse=True)
def _in_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_listed_with_a_sentence_each(kind, capsys):
    assert main(["list", kind, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found) > 4 and all(found.values())


def test_a_word_narrows_the_list(capsys):
    assert main(["list", "losses", "TempCLR"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines and all("tempclr" in line.lower() for line in lines)
    assert main(["list", "losses", "no such word"]) == 1


def test_each_value_is_shown_with_the_file_that_has_the_last_word(tmp_path, capsys):
    file = tmp_path / "mine.yaml"
    file.write_text(f"includes: {NORTON}\nloss: {{beta: 0.25}}\n")
    assert main(["config", str(file), "--set", "loss.alpha_lse=2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["loss.beta"] == {"value": 0.25, "from": str(file)}
    assert found["loss.alpha_lse"] == {"value": 2, "from": "--set"}
    assert found["loss.loss_cls"]["from"].endswith(NORTON)


def test_a_section_can_be_shown_alone(capsys):
    assert main(["config", NORTON, "--key", "loss"]) == 0
    assert all(line.startswith("loss.") for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize("how", [[], ["--whole"]], ids=["include", "whole"])
def test_a_copy_says_the_same_and_is_not_written_over(how, tmp_path, capsys):
    target = tmp_path / "mine.yaml"
    assert main(["copy", NORTON, str(target), *how]) == 0
    copied, original = load_config(target), load_config(NORTON)
    assert (copied.loss, copied.dataset, copied.fairseq) == (
        original.loss,
        original.dataset,
        original.fairseq,
    )
    assert ("includes" in target.read_text()) is not bool(how)
    assert main(["copy", NORTON, str(target)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_a_wrong_file_is_told_from_a_right_one_by_the_exit_code(tmp_path, capsys):
    assert main(["check", NORTON]) == 0
    assert "nothing wrong" in capsys.readouterr().out
    (tmp_path / "x.yaml").write_text(f"includes: {NORTON}\ndataset: {{max_lenn: 3}}\n")
    assert main(["check", str(tmp_path / "x.yaml"), "--json"]) == 1
    (problems,) = json.loads(capsys.readouterr().out).values()
    (problem,) = [problem for problem in problems if problem["level"] == "error"]
    assert problem["key"] == "dataset.max_lenn" and "max_len" in problem["cure"]
