"""Every command line that earlier pages printed (earlier_commands.txt) is still one that is understood."""

import importlib
import importlib.util
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import locallaunch
from mmpt_cli import data_run
from mmpt_cli import main as cli
from tests.conftest import ROOT

LINES = (Path(__file__).parent / "earlier_commands.txt").read_text().splitlines()
LINES = [line for line in LINES if "--help" not in line]
LAUNCHES = [line for line in LINES if " locallaunch.py " in line]
MODULES = ["checkpoint", "compare_losses", "compare_runs", "data", "dedup", "describe_losses", "doctor"]
MODULES += ["gdt_masks", "main_job", "make_clips", "make_data", "modalities", "predict", "search", "shards"]
MODULES += ["torchrunjob"]


@pytest.mark.parametrize("line", LAUNCHES)
def test_a_line_of_the_launcher_has_a_dry_run(line, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    words = [word for word in shlex.split(line)[2:] if word != "--dryrun"]
    assert locallaunch.main([*words, "--dryrun"]) == 0
    assert "launching" in capsys.readouterr().out


@pytest.mark.parametrize("line", [line for line in LINES if line not in LAUNCHES])
def test_a_line_is_parsed_by_the_verb_that_it_became(line, monkeypatch):
    parsed = []

    def load(verb):
        module = importlib.import_module(f"mmpt_cli.{cli.VERBS[verb][0]}")
        return lambda words: parsed.append(module.parser().parse_args(words))

    monkeypatch.setattr(cli, "load", load)
    words = shlex.split(line)
    if words[0] == "torchrun":
        words = ["python", *words[3:]]
    if words[1] == "-m":
        name, words = words[2].removeprefix("mmpt_cli."), words[3:]
    else:
        name, words = words[1], words[2:]
    if name == "compare_losses":
        assert len(words) == 1 and (ROOT / words[0]).is_file()
        return
    if name in cli.VERBS or name == "mmpt_cli/predict.py":
        load(name.removeprefix("mmpt_cli/").removesuffix(".py"))(words)
    elif name.endswith(".py"):
        _import(ROOT / name).main(words)
    else:
        importlib.reload(importlib.import_module(f"mmpt_cli.{name}")).main(words)
    assert len(parsed) == 1


def _import(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["msrvtt", "youcook", "coin", "crosstask", "htm-align"])
def test_the_converters_keep_their_options(name, capsys):
    with pytest.raises(SystemExit, match="0"):
        data_run.convert([name, "--help"])
    shown = capsys.readouterr().out
    assert {"youcook": "--csv", "msrvtt": "--test"}.get(name, "source") in shown


@pytest.mark.parametrize("name", MODULES)
def test_a_module_that_was_a_command_is_one_still(name):
    spec = importlib.util.find_spec(f"mmpt_cli.{name}")
    assert 'if __name__ == "__main__":' in Path(spec.origin).read_text()


def test_the_import_that_papers_print_works():
    from mmpt_cli.localjob import LocalJob

    assert LocalJob("projects/toy/norton.yaml", "local_single").path == "projects/toy/norton.yaml"


def test_predict_as_a_file_finds_its_package():
    done = subprocess.run(
        [sys.executable, "mmpt_cli/predict.py", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0 and "mmpt predict FILE" in done.stdout
