"""Every block of code on every page is run or read by a test, and the pages make a site."""

from __future__ import annotations

import argparse
import ast
import importlib
import os
import re
import shlex
import subprocess
import sys
from unittest import mock

import pytest
import yaml

import mmpt
from mmpt_cli import data_run
from mmpt_cli.main import VERBS
from tests.conftest import ROOT, project_table

PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("data/*.md"), *ROOT.glob("projects/*.md")]
)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = [
    (language, block, f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, (language, block) in enumerate(BLOCK.findall(page.read_text()))
]


def blocks(*languages):
    """The blocks of a language, each a case."""
    return [pytest.param(block, id=place) for language, block, place in BLOCKS if language in languages]


def lines():
    """The shell lines, each a case."""
    found = {}
    for language, block, place in BLOCKS:
        for line in block.replace("\\\n", " ").splitlines() if language in ("bash", "sh", "shell") else ():
            words = shlex.split(line, comments=True)
            if words:
                found.setdefault(" ".join(words), pytest.param(words, id=f"{place}-{' '.join(words)[:50]}"))
    return list(found.values())


def understand(words):
    """Asserts that the words are a command that there is; its options are read by its own parser."""
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    program, *rest = words
    if program == "torchrun":
        start = next(i for i, word in enumerate(rest) if word == "-m" or word.endswith(".py"))
        program, rest = "python", rest[start:]
    if program == "./run.sh":
        known = re.findall(r"^    (\w+)\)", (ROOT / "run.sh").read_text(), re.MULTILINE)
        assert not rest or rest[0].startswith("-") or rest[0] in known
    elif program == "mmpt":
        parse(rest)
    elif program == "pip":
        command = importlib.import_module("pip._internal.commands").create_command(rest[0])
        options, _ = command.parse_args(rest[1:])
        for name in [*options.requirements, *options.constraints]:
            assert (ROOT / name).exists()
    elif program == "sbatch":
        understand(shlex.split(rest[rest.index("--wrap") + 1]))
    elif program in ("cd", "git", "export"):
        assert rest
    elif program == "source":
        assert rest == [".venv/bin/activate"]  # that of run.sh
    elif program.endswith("python") and rest[0] == "-m":
        assert importlib.util.find_spec(rest[1])
        if rest[1] == "mmpt_cli":
            parse(rest[2:])
        elif rest[1].startswith("experiments."):
            parse_alone(importlib.import_module(rest[1]).main, rest[2:])
    elif program.endswith("python") and rest[0] == "locallaunch.py":
        parse(["train", *rest[1:]])  # tests/test_readme.py runs it dry
    elif program.endswith("python"):
        assert (ROOT / rest[0]).exists()
    else:
        raise AssertionError(f"no test understands {program!r}")


class Parsed(Exception):
    """The words were understood."""


def parse_alone(main, words):
    """Call a `main` up to where its words are parsed."""
    parse_args = argparse.ArgumentParser.parse_args

    def stop(parser, args=None, namespace=None):
        parse_args(parser, args, namespace)
        raise Parsed

    with mock.patch.object(argparse.ArgumentParser, "parse_args", stop), pytest.raises(Parsed):
        main(words)


def parse(words):
    """A verb of `mmpt` and its options, by the verb's own parser."""
    verb, *rest = words
    if verb.startswith("--") or "--help" in rest:
        assert verb in VERBS or verb in ("--help", "--version")
    elif (verb, *rest[:1]) == ("data", "convert"):
        assert rest[1].replace("-", "_") in data_run.converting.converters()
    else:
        importlib.import_module(f"mmpt_cli.{VERBS[verb][0]}").parser().parse_args(rest)


@pytest.mark.parametrize("words", lines())
def test_a_shell_line_names_a_command_that_there_is(words):
    understand(words)


@pytest.mark.parametrize(
    "line",
    [
        "mmpt tarin projects/toy/norton.yaml",
        "mmpt train projects/toy/norton.yaml --nporc 2",
        "mmpt search query 'pour the milk' --index",
        "python locallaunch.py projects/toy/norton.yaml --dry",
        "torchrun --nproc-per-node 4 -m mmpt_cli features video in out --wieghts w.pth",
        "sbatch --array=0-15 --wrap 'mmpt features video in out --wieghts w.pth'",
        "python -m experiments.compare_losses projects/toy/compare.yaml --jbos 2",
        "python -m mmpt_cli.no_such_file",
        "pip install --no-dpes mmpt",
        "pip install -r no_requirements.txt",
        "python no_such_script.py",
        "./run.sh tset",
        "mppt train",
    ],
)
def test_a_broken_line_would_be_found(line):
    with pytest.raises((AssertionError, KeyError, SystemExit)):
        understand(shlex.split(line))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_says_what_it_is_and_no_command_hides_in_plain_text(page):
    fences = re.findall(r"^\s*```(.*)$", page.read_text(), re.MULTILINE)
    assert set(fences[::2]) <= {"bash", "python", "yaml", "json", "toml", "text"} and not any(fences[1::2])
    texts = [block for language, block in BLOCK.findall(page.read_text()) if language == "text"]
    assert not re.findall(r"^(?:mmpt|python|pip|torchrun|\./run\.sh) .*$", "\n".join(texts), re.MULTILINE)


@pytest.mark.parametrize("block", blocks("python"))
def test_a_python_block_compiles_and_imports_what_there_is(block):
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, name.name) for name in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "mmpt":
            assert node.attr in dir(mmpt)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_an_extra_that_a_page_names_is_one_of_the_package(page):
    extras = project_table()["optional-dependencies"]
    assert set(re.findall(r"\bextra `([\w-]+)`", page.read_text())) <= set(extras)


@pytest.mark.parametrize("block", blocks("yaml"))
def test_a_yaml_block_has_the_keys_that_there_are(block, tmp_path, monkeypatch):
    tree = yaml.safe_load(block)
    if "plugins" in tree or not {"includes", "loss", "dataset"} & tree.keys():
        return  # tests/test_plugins.py trains with the plugin; the other kind is a SLURM resource set
    (tmp_path / "mine.yaml").write_text(block)
    monkeypatch.chdir(tmp_path)
    errors = [problem for problem in mmpt.check("mine.yaml") if problem.level == "error"]
    if "includes" not in tree:  # a part of a file
        errors = [problem for problem in errors if "is missing" not in problem.message]
    assert not errors


def test_the_pages_make_a_site_without_a_broken_link(tmp_path):
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install 'mmpt[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "-q", "--strict", "-d", str(tmp_path)]
    command += ["-f", "scripts/docs/mkdocs.yml"]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    run = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    page = (tmp_path / "reference" / "keys.html").read_text()
    assert "sinkhorn_iterations" in page
    foreign = re.compile(r"<(?:script|link|img)[^>]+(?:src|href)=\"?(https?://[^\" >]+)")
    assert not [link for path in tmp_path.rglob("*.html") for link in foreign.findall(path.read_text())]
