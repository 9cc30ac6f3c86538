"""What Python 3.10 lacks is used nowhere, so that a newer Python on the desk does not shut the oldest one
out."""

from __future__ import annotations

import ast
import warnings
from pathlib import Path

import pytest

from tests.conftest import ROOT, project_table

OLDEST = (3, 10)
FOLDERS = ("mmpt", "mmpt_cli", "scripts", "experiments", "benchmarks", "tests")
FILES = [*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))]
LATER = {  # names of the standard library that came after Python 3.10
    "asyncio": {"Barrier", "Runner", "TaskGroup", "timeout", "timeout_at"},
    "contextlib": {"chdir"},
    "copy": {"replace"},
    "datetime": {"UTC"},
    "enum": {"EnumCheck", "ReprEnum", "StrEnum", "member", "nonmember", "verify"},
    "hashlib": {"file_digest"},
    "inspect": {"getasyncgenstate", "getmembers_static", "markcoroutinefunction"},
    "itertools": {"batched"},
    "logging": {"getHandlerByName", "getHandlerNames", "getLevelNamesMapping"},
    "math": {"cbrt", "exp2", "fma", "sumprod"},
    "operator": {"call"},
    "os": {"process_cpu_count"},
    "queue": {"ShutDown"},
    "random": {"binomialvariate"},
    "sys": {"exception", "monitoring"},
    "typing": {
        *("LiteralString", "Never", "NotRequired", "Required", "Self", "TypeAliasType", "TypeIs", "Unpack"),
        *("TypeVarTuple", "assert_never", "assert_type", "dataclass_transform", "override", "reveal_type"),
    },
    "warnings": {"deprecated"},
}
MODULES = {"annotationlib", "compression", "tomllib", "string.templatelib", "concurrent.interpreters"}
BUILTINS = {"BaseExceptionGroup", "ExceptionGroup", "PythonFinalizationError"}


def later_names(source: str) -> set[str]:
    """Names of later Pythons in a program; imports within `try` know what they do."""
    tree = ast.parse(source, feature_version=OLDEST)
    tried = {id(node) for block in ast.walk(tree) if isinstance(block, ast.Try) for node in ast.walk(block)}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in LATER.get(node.value.id, ()):
                found.add(f"{node.value.id}.{node.attr}")
        elif isinstance(node, ast.Name):
            found |= {node.id} & BUILTINS
        elif isinstance(node, (ast.Import, ast.ImportFrom)) and id(node) not in tried:
            names = [alias.name for alias in node.names]
            module = getattr(node, "module", None) or ""
            found |= MODULES & {module, *names}
            found |= {f"{module}.{name}" for name in names if name in LATER.get(module, ())}
    return found


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("from typing import Any, Self", "typing.Self"),
        ("import hashlib\nhashlib.file_digest(f, 'md5')", "hashlib.file_digest"),
        ("import tomllib", "tomllib"),
        ("raise ExceptionGroup('x', [])", "ExceptionGroup"),
    ],
)
def test_a_name_of_a_later_python_is_found(source, name):
    assert later_names(source) == {name}


def test_an_import_that_is_tried_is_left_alone():
    assert not later_names("try:\n    import tomllib\nexcept ModuleNotFoundError:\n    import tomli\n")


def test_syntax_of_a_later_python_is_found():
    with pytest.raises(SyntaxError):
        later_names("try:\n    pass\nexcept* ValueError:\n    pass\n")


def test_no_file_needs_more_than_the_oldest_python():
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an escape sequence that later Pythons refuse
        found = {str(path.relative_to(ROOT)): later_names(path.read_text()) for path in FILES}
    found.pop(str(Path(__file__).relative_to(ROOT)))
    assert not {path: names for path, names in found.items() if names}


def test_the_oldest_python_is_the_one_that_the_metadata_name():
    assert project_table()["requires-python"] == f">={OLDEST[0]}.{OLDEST[1]}"
