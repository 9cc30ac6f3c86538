"""The wheel is the product: built, installed out of sight of this checkout, used from an empty folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

SOURCES = ("mmpt", "mmpt_cli", "projects", "scripts", "pyproject.toml", "setup.py", "README.md", "LICENSE")
SHIPPED = [
    *sorted(path for path in (ROOT / "projects").rglob("*") if path.suffix in (".yaml", ".ipynb", ".md")),
    ROOT / "scripts/slurm/resources.yaml",
]
OUTSIDE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
    "OMP_NUM_THREADS": "1"
}
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, so that neither leftovers of earlier builds get in nor this one stays."""
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "source").mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / "source" / name)
    options = ["--no-deps", "--no-index", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*PIP, "wheel", *options, str(folder / "source")], check=True)
    return next(folder.glob("*.whl"))


class Elsewhere:
    """An environment with the wheel in it, and an empty folder to use it from."""

    def __init__(self, wheel: Path, folder: Path):
        self.folder = folder / "empty"
        self.folder.mkdir()
        venv.create(folder / "venv")
        self.bin = folder / "venv/bin"
        install = ["install", "--no-deps", "--no-index", "--no-compile", str(wheel)]
        subprocess.run([*PIP, "--python", str(self.bin / "python"), *install], env=OUTSIDE, check=True)
        self.site = next((folder / "venv/lib").glob("python*/site-packages"))
        # the packages of this environment, without the link to this checkout that one of its .pth files holds
        (self.site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(self, *words: str) -> str:
        command = [str(self.bin / words[0]), *words[1:]]
        done = subprocess.run(command, cwd=self.folder, env=OUTSIDE, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout


@pytest.fixture(scope="module")
def elsewhere(wheel, tmp_path_factory) -> Elsewhere:
    return Elsewhere(wheel, tmp_path_factory.mktemp("elsewhere"))


def test_it_holds_the_library_the_commands_and_every_file_that_is_shipped(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    code = [path for folder in ("mmpt", "mmpt_cli") for path in (ROOT / folder).rglob("*.py")]
    assert {str(path.relative_to(ROOT)) for path in code} <= names
    assert {f"mmpt/shipped/{path.relative_to(ROOT)}" for path in SHIPPED} <= names
    pages = [path for kind in ("templates", "static") for path in (ROOT / "mmpt/pages" / kind).iterdir()]
    assert {str(path.relative_to(ROOT)) for path in pages} <= names
    assert "mmpt/py.typed" in names


def test_it_holds_nothing_else(wheel):
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert sorted(top.split("-")[0] for top in tops) == ["mmpt", "mmpt", "mmpt_cli"]


def test_it_names_its_command_licence_and_python(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (
            archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA")
        )
        (entry,) = (
            archive.read(name).decode() for name in archive.namelist() if name.endswith("/entry_points.txt")
        )
    assert "mmpt = mmpt_cli.main:main" in entry
    assert "License-Expression: Apache-2.0" in metadata and "Requires-Python: >=3.10" in metadata
    assert "# mmpt" in metadata  # README


def test_the_library_comes_from_the_wheel(elsewhere):
    shown = elsewhere.run("python", "-c", "import mmpt, mmpt_cli; print(mmpt.__file__, mmpt_cli.__file__)")
    assert all(path.startswith(str(elsewhere.site)) for path in shown.split())


def test_every_shipped_project_file_is_found_by_name(elsewhere):
    names = [str(path.relative_to(ROOT)) for path in SHIPPED if path.suffix == ".yaml"]
    code = (
        "import sys; from mmpt.config import recursive_config as read; [read(name) for name in sys.argv[1:]]"
    )
    elsewhere.run("python", "-c", code, *names)


def test_a_yaml_of_ones_own_includes_a_shipped_one(elsewhere):
    (elsewhere.folder / "mine.yaml").write_text(
        "includes: projects/toy/norton.yaml\nloss: {loss_cls: TempCLRLoss}\n"
    )
    code = "from mmpt.config import load_config; print(load_config('mine.yaml').loss['loss_cls'])"
    assert elsewhere.run("python", "-c", code) == "TempCLRLoss\n"


@pytest.mark.parametrize("choice", [[], ["--jobtype", "local_small"], ["--slurm", "big"]], ids=" ".join)
def test_a_dry_run_from_an_empty_folder(elsewhere, choice):
    path = "projects/retri/norton/how2_pretrain.yaml"
    assert f" {path} --user-dir " in elsewhere.run("mmpt", "train", path, "--dryrun", *choice)
    assert not list(elsewhere.folder.glob("runs"))


@pytest.mark.slow
def test_the_main_job_two_processes_prediction_and_a_model_in_python(elsewhere):
    elsewhere.run("mmpt", "demo", "--size", "tiny", "--updates", "4", "2")
    short = [f"fairseq.optimization.{key}=2" for key in ("max_update", "total_num_update", "warmup_updates")]
    short += ["fairseq.checkpoint.restore_file=null", "fairseq.checkpoint.save_dir=runs/two"]
    words = [word for setting in short for word in ("--set", setting)]
    elsewhere.run("mmpt", "train", "projects/toy/norton.yaml", "--device", "cpu", "--nproc", "2", *words)
    checkpoint = ["--checkpoint", "runs/two/checkpoint_last.pt"]
    elsewhere.run("mmpt", "predict", "projects/toy/test_vtt_zs.yaml", *checkpoint, "--out", "runs/report")
    assert list((elsewhere.folder / "runs/report").rglob("results.json"))
    code = (
        "from mmpt.models import MMPTModel; m, *_ = MMPTModel.from_pretrained('projects/toy/norton.yaml', "
        "checkpoint='checkpoint_last.pt', video_encoder=None); print(*m.encode_text(['pour milk']).shape)"
    )
    assert elsewhere.run("python", "-c", code).split()[0] == "1"
