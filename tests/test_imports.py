"""Who may import whom. The table is the architecture; a new arrow is a decision, not an accident."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

ALLOWED = {
    "registry": {"sources"},
    "sources": set(),
    "ops": set(),
    "utils": set(),
    "media": {"utils"},
    "config": {"historic", "registry", "utils"},
    "historic": {"ops", "config"},
    "losses": {"ops", "config", "registry"},
    "modules": {"ops"},
    "zoo": {"config", "utils"},
    "checkpoints": {"config", "utils", "zoo"},
    "backbones": {"modules", "media", "checkpoints", "ops", "utils", "registry", "zoo"},
    "models": {"modules", "backbones", "checkpoints", "ops", "utils", "config", "registry"},
    "processors": {"ops", "media", "utils", "config", "registry"},
    "datasets": {"processors", "utils", "config", "registry"},
    "neighbours": {"datasets", "ops", "utils", "config", "registry"},
    "extraction": {"media", "backbones", "processors", "utils"},
    "calibration": {"utils", "config"},
    "inference": {
        "calibration",
        "neighbours",
        "models",
        "processors",
        "backbones",
        "media",
        "checkpoints",
        "extraction",
        "modules",
        "ops",
        "utils",
        "config",
        "registry",
        "zoo",
    },
    "pages": {"checkpoints", "inference", "evaluators", "media", "utils", "config"},
    "evaluators": {"calibration", "historic", "ops", "processors", "utils", "config", "registry"},
    "audit": {"evaluators", "historic", "utils"},
    "certify": {"losses", "ops", "registry", "utils"},
    "synthetic": {"processors", "utils", "config"},
    "tasks": {
        "models",
        "losses",
        "datasets",
        "evaluators",
        "modules",
        "neighbours",
        "checkpoints",
        "ops",
        "utils",
        "config",
        "registry",
    },
    "api": {
        "backbones",
        "checkpoints",
        "config",
        "datasets",
        "evaluators",
        "extraction",
        "launch",
        "models",
        "ops",
        "processors",
        "registry",
        "tasks",
        "utils",
        "zoo",
    },
    "launch": {"config", "utils"},
    "demo": {
        "api",
        "checkpoints",
        "config",
        "datasets",
        "evaluators",
        "inference",
        "models",
        "ops",
        "pages",
        "processors",
        "synthetic",
        "utils",
        "zoo",
    },
    "replay": {"launch", "checkpoints", "config", "utils"},
    "fairseq_plugin": {"tasks", "datasets", "checkpoints", "launch", "ops", "pages", "utils", "config"},
}
OPEN = {"config", "registry", "utils"}  # which the page of the architecture does not list
# `from mmpt.models import MMPTModel`, which papers print
LAZY = {ROOT / "mmpt/models/__init__.py": {"inference"}}
HOOK = (
    ROOT / "mmpt/tasks/fairseqmmtask.py"
)  # what fairseq's --user-dir scan finds; its one job is to import the plugin
LIGHT = {
    "config": {"yaml"},
    "registry": set(),
    "sources": set(),
}  # third-party imports of the packages that must start at once
FAIRSEQ = {"fairseq", "fairseq_cli", "hydra"}
OPTIONAL = {
    "starlette",
    "uvicorn",
    "plotly",
    "jinja2",
    "pysubs2",
    "faiss",
    "pandas",
    "av",
    "matplotlib",
    "sklearn",
    "scipy",
}


def package_of(path: Path) -> str:
    return path.relative_to(ROOT / "mmpt").parts[0].removesuffix(".py")


SCRIPTS = ("benchmarks", "experiments", "scripts")
MODULES = sorted(path for path in (ROOT / "mmpt").rglob("*.py") if package_of(path) != "__init__")


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    """Dotted names of all modules that `path` imports; relative imports are refused, so names are
    complete."""
    tree = ast.parse(path.read_text(), str(path))
    found = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            assert all(alias.name != "*" for alias in node.names), f"{path}:{node.lineno}: star import"
            found |= {
                f"{node.module}.{alias.name}" if node.module in ("mmpt", "mmpt_cli") else node.module
                for alias in node.names
            }
    return found


def identify(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_page_of_the_architecture_says_what_each_package_imports():
    page = (ROOT / "docs/architecture.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| .* \| ((?:`\w+`(?:, )?)*) ?\|$", page, re.MULTILINE)
    said = {name: set(re.findall(r"\w+", imported)) for name, imported in rows}
    assert said == {name: allowed - OPEN for name, allowed in ALLOWED.items()}


@pytest.mark.parametrize("path", MODULES, ids=identify)
def test_a_package_imports_only_what_the_architecture_allows(path):
    package = package_of(path)
    inside = {name.split(".")[1] for name in imports(path) if name.startswith("mmpt.")} - {
        package,
        "__version__",
    }
    allowed = ALLOWED[package] | ({"fairseq_plugin"} if path == HOOK else set()) | LAZY.get(path, set())
    assert inside <= allowed, (
        f"{identify(path)} may not import mmpt.{', mmpt.'.join(sorted(inside - allowed))}"
    )


@pytest.mark.parametrize("path", MODULES, ids=identify)
def test_only_the_plugin_imports_fairseq(path):
    if package_of(path) != "fairseq_plugin":
        assert not {name.split(".")[0] for name in imports(path)} & FAIRSEQ


@pytest.mark.parametrize("path", [path for path in MODULES if package_of(path) in LIGHT], ids=identify)
def test_config_and_registry_need_the_standard_library_and_yaml_alone(path):
    outside = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names) - {"mmpt"}
    assert outside <= LIGHT[package_of(path)]


@pytest.mark.parametrize("path", MODULES, ids=identify)
def test_optional_packages_are_imported_where_they_are_used(path):
    assert not {name.split(".")[0] for name in imports(path, top_level_only=True)} & OPTIONAL


@pytest.mark.parametrize("path", MODULES, ids=identify)
def test_the_library_logs_instead_of_printing(path):
    tree = ast.parse(path.read_text())
    tree.body = [
        node for node in tree.body if getattr(node, "name", "") != "main"
    ]  # a command's entry may print
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    prints = [
        call.lineno
        for call in calls
        if getattr(call.func, "id", "") == "print" and "file" not in {kw.arg for kw in call.keywords}
    ]
    assert not prints, f"{identify(path)} prints in lines {prints}"


def test_nothing_in_the_library_imports_scripts_commands_or_tests():
    for path in MODULES:
        assert not {name.split(".")[0] for name in imports(path)} & {
            "scripts",
            "mmpt_cli",
            "tests",
            "locallaunch",
            "train",
        }, path


def test_the_launcher_needs_config_alone():
    files = (ROOT / "locallaunch.py", ROOT / "mmpt_cli" / "train.py", ROOT / "mmpt_cli" / "options.py")
    inside = {name for file in files for name in imports(file) if name.startswith("mmpt.")}
    assert all(name.startswith(("mmpt.config", "mmpt.launch")) for name in inside)


def test_every_package_has_its_row_in_the_table():
    assert {package_of(path) for path in MODULES} == set(ALLOWED)


@pytest.mark.parametrize("module", ["mmpt", "mmpt.config", "mmpt.registry", "locallaunch"])
def test_these_import_without_torch_transformers_or_fairseq(module):
    block = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'numpy', 'transformers', 'fairseq', "
        "'omegaconf')));"
    )
    subprocess.run([sys.executable, "-c", f"{block} import {module}"], cwd=ROOT, check=True)


def test_everything_but_the_plugin_imports_without_fairseq():
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in MODULES
        if path != HOOK and path.name != "_triton.py"  # kernels are imported where they are run
    ]
    names = [name for name in names if not name.startswith("mmpt.fairseq_plugin")]
    block = "import sys, importlib; sys.modules.update(dict.fromkeys(('fairseq', 'hydra', 'omegaconf')));"
    code = f"{block} [importlib.import_module(name) for name in {names}]"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_benchmarks_experiments_and_scripts_import_what_is_there():
    missing = []
    for path in (path for folder in SCRIPTS for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mmpt":
                module = importlib.import_module(node.module)
                names = [alias.name for alias in node.names if not hasattr(module, alias.name)]
                missing += [
                    f"{identify(path)}:{node.lineno}: {node.module}.{name}"
                    for name in names
                    if importlib.util.find_spec(f"{node.module}.{name}") is None
                ]
    assert not missing


def test_tests_share_helpers_and_no_test_files():
    for path in (ROOT / "tests").rglob("*.py"):
        shared = [name for name in imports(path) if name.startswith("tests.")]
        assert not [name for name in shared if name.split(".")[-1].startswith("test_")], path
