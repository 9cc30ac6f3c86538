"""Packages that only some features need: how their absence is told."""

from __future__ import annotations

import ast
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from mmpt.utils.optional import CHECKOUT, install_line, optional_import
from tests.conftest import ROOT, project_table

FOLDERS = ("mmpt", "mmpt_cli", "scripts", "experiments", "benchmarks")
PAGES = [path for folder in (*FOLDERS, "docs") for path in (ROOT / folder).rglob("*.*")]
PAGES = [
    path for path in (*PAGES, *ROOT.glob("*.*"), ROOT / "run.sh") if path.suffix in (".py", ".md", ".sh")
]
CALLS = [
    (path, *(argument.value for argument in (*call.args, *(word.value for word in call.keywords))))
    for folder in FOLDERS
    for path in sorted((ROOT / folder).rglob("*.py"))
    for call in ast.walk(ast.parse(path.read_text()))
    if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "optional_import"
]


def lists(monkeypatch, *lines):
    monkeypatch.setattr(metadata, "requires", lambda name: list(lines))


def test_a_missing_package_is_named_with_what_to_install(monkeypatch):
    lists(monkeypatch, "numpy>=1.26", 'av<19,>=14; extra == "video"')
    with pytest.raises(
        ImportError,
        match=r"needs the package 'no_such', which is not there. Install it: pip install 'av<19,>=14'$",
    ):
        optional_import("no_such.part", extra="video")


def test_package_whose_own_requirement_is_absent_names_both(tmp_path, monkeypatch):
    (tmp_path / "half_there.py").write_text("import no_such_vision")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ImportError, match="'half_there' is installed, but this needs the package 'no_such_vision'"
    ):
        optional_import("half_there", extra="open_clip")


def test_compiled_package_that_cannot_be_loaded_names_the_libraries(tmp_path, monkeypatch):
    message = "many lines\\nOSError: libx.so.13: cannot open shared object file: No such file\\nmore"
    (tmp_path / "compiled.py").write_text(f'raise RuntimeError("{message}")')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="cannot be loaded here: system libraries not found: libx.so.13"):
        optional_import("compiled", extra="torchcodec")


def test_of_an_extra_the_package_that_brings_the_module_is_named_alone(monkeypatch):
    lists(monkeypatch, "torch", "open_clip_torch>=2; extra == 'open-clip'", "b; extra == 'open-clip'")
    assert install_line("open_clip", "open_clip.model") == "pip install 'open_clip_torch>=2'"
    assert install_line("open_clip") == "pip install 'open_clip_torch>=2' 'b'"


def test_without_an_extra_the_base_brings_the_module(monkeypatch):
    lists(monkeypatch, "torch", "transformers<6,>=5", "transformers; extra == 'odd'")
    assert install_line(None, "transformers") == "pip install 'transformers<6,>=5'"


def test_where_mmpt_was_never_installed_the_checkout_is_named(monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", absent)
    assert install_line("video") == f"pip install -e '{ROOT}[video]'"
    assert install_line(None) == f"pip install -e '{CHECKOUT}'"


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call[0].stem}-{call[1]}")
def test_every_extra_named_in_the_code_brings_the_module(call: tuple[Path, str]):
    _, module, *extra = call
    project = project_table()
    lines = project["optional-dependencies"][extra[0].replace("_", "-")] if extra else project["dependencies"]
    names = [Requirement(line).name.replace("-", "_") for line in lines]
    stem = {"sklearn": "scikit_learn"}.get(module.split(".")[0], module.split(".")[0])
    assert any(name.startswith(stem) for name in names)


def test_no_message_or_page_asks_an_index_for_mmpt():
    texts = {path: path.read_text() for path in PAGES}
    assert not [
        path for path, text in texts.items() if "pip install mmpt" in text or "install 'mmpt[" in text
    ]
