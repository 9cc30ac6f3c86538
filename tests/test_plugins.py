"""docs/plugins.md: classes in files of one's own, named in YAML, checked, trained, tested, installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import types

import numpy as np
import pytest

import mmpt
from experiments import training_process
from mmpt.config import load_config
from mmpt.registry import REGISTRIES, UnknownName
from mmpt.synthetic.clips import write_clips
from mmpt.tasks import build_task
from mmpt_cli import features
from scripts.docs import losses as describe_losses
from tests.conftest import ROOT
from tests.toy_training import UPDATES, train

FILES = ("my_loss.py", "my_set.py", "my_backbone.py", "my_metric.py")
PAGE = (ROOT / "docs/plugins.md").read_text()


def block(language: str, name: str = "") -> str:
    """The page's first code of that language behind a name."""
    return re.search(rf"```{language}\n(.*?)```", PAGE[PAGE.index(name) :], re.DOTALL)[1]


@pytest.fixture
def project(tmp_path):
    """The page's loss and project file, in a folder of their own."""
    (tmp_path / "my_loss.py").write_text(block("python"))
    path = tmp_path / "mine.yaml"
    path.write_text(block("yaml").replace("my_loss.py", str(tmp_path / "my_loss.py")))
    return path


@pytest.fixture
def forget_the_plugin(monkeypatch):
    """What a test registers in this process is gone after it."""
    for registry in REGISTRIES.values():
        monkeypatch.setattr(registry, "_classes", dict(registry._classes))
    yield
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)


def dry_run(project, *options: str) -> subprocess.CompletedProcess:
    words = [
        sys.executable,
        "locallaunch.py",
        str(project),
        "--jobtype",
        "local_single",
        "--dryrun",
        *options,
    ]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("name", FILES)
def test_an_example_is_short_enough_to_be_one(name):
    assert len([line for line in block("python", f"`{name}`").splitlines() if line.strip()]) <= 20


def test_the_examples_go_from_video_files_to_a_number(tmp_path, forget_the_plugin):
    pytest.importorskip("av")
    clips = write_clips(tmp_path / "data/toy_clips", videos=16, seconds=2)
    for name in FILES:
        (tmp_path / name).write_text(block("python", f"`{name}`"))
    for name in ("mine.yaml", "test_mine.yaml"):
        text = block("yaml", f"\n`{name}`")
        for folder in ("data/toy_clips", "my_features", "runs/mine"):
            text = text.replace(folder, str(tmp_path / folder))
        (tmp_path / name).write_text(text)
    for folder in clips:
        words = ["video", str(folder), str(tmp_path / "my_features"), "--backbone", "motion", "--quiet"]
        features.main([*words, "--plugin", str(tmp_path / "my_backbone.py")])
        assert np.load(tmp_path / "my_features" / f"{folder.name}000.npy").shape == (2, 192)
    assert not [found for found in mmpt.check(tmp_path / "mine.yaml") if found.level == "error"]
    lines = train(training_process.server(), tmp_path, tmp_path / "mine.yaml", tmp_path / "run")
    assert all(line["margin"] > 0 for line in lines)
    checkpoint = tmp_path / "run/checkpoint_last.pt"
    report = mmpt.evaluate(tmp_path / "test_mine.yaml", checkpoint, device="cpu")
    assert 0 < report.result.values["MRR"] <= 1


def test_the_dry_run_accepts_the_example(project):
    words = ["locallaunch.py", str(project), "--jobtype", "local_single", "--dryrun"]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and str(project) in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("loss.margn=0.1", r"\.margn: unknown key\. Did you mean .*\.margin\?"),
        ("loss.margin=-1", "expected a finite number and above 0, got -1"),
        ("loss.loss_cls=MarginLos", "Did you mean MarginLoss"),
    ],
)
def test_what_is_wrong_in_the_section_of_a_plugin_is_found_at_the_start(
    project, setting, message, forget_the_plugin
):
    with pytest.raises((ValueError, UnknownName), match=message):
        build_task(load_config(project, [setting]))


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("loss.margn=0.1", "loss.margn: unknown key. Did you mean loss.margin?"),
        ("loss.margin=-1", "loss.margin: expected a finite number and above 0, got -1"),
        ("loss.loss_cls=MarginLos", "unknown loss 'MarginLos'. Did you mean MarginLoss"),
    ],
)
def test_check_finds_it_too_without_importing_the_plugin(project, setting, problem, forget_the_plugin):
    errors = [str(found) for found in mmpt.check(project, [setting]) if found.level == "error"]
    assert len(errors) == 1 and problem in errors[0] and "my_loss" not in sys.modules
    assert not [found for found in mmpt.check(project) if found.level == "error"]


def test_the_example_trains(project, toy_world, tmp_path, forget_the_plugin):
    lines = train(training_process.server(), toy_world, project, tmp_path / "run")
    assert len(lines) == UPDATES and all(line["margin"] > 0 and line["gnorm"] > 0 for line in lines)


def test_an_installed_package_needs_no_line_in_yaml(project, tmp_path):
    package = tmp_path / "my_package-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    entry = re.search(r'entry-points\."(.*?)"\]\n(.*?)\n', block("toml"))
    (package / "entry_points.txt").write_text(f"[{entry[1]}]\n{entry[2].replace(chr(34), '')}\n")
    code = (
        "from mmpt.losses import build_loss as b; print(b({'loss_cls': 'MarginLoss', 'margin': 0.5}).config)"
    )
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert "margin=0.5" in done.stdout, done.stderr


def test_the_page_of_losses_finds_a_new_one_by_itself(forget_the_plugin, monkeypatch):
    module = types.ModuleType("mmpt.losses.margin")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(block("python"), vars(module))
    assert describe_losses.families()["Further losses"] == ["MarginLoss"]
    page = describe_losses.page()
    assert "### MarginLoss" in page and "by which a caption lies closer" in page
