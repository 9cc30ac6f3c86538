"""The rows of rows.md: their lines run dry or are parsed here, and the tests that they name exist."""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import locallaunch
from mmpt import registry
from mmpt_cli.main import VERBS
from tests.conftest import ROOT, project_table

ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (Path(__file__).parent / "rows.md").read_text().splitlines()
    if re.match(r"\| \d+ ", line)
]
REFERENCE = re.compile(r"(tests/[\w/]+\.py)(?:::(\w+))?")
LINES = [
    (int(row[0]), line) for row in ROWS for line in re.findall(r"`((?:python locall|mmpt )[^`]+)`", row[3])
]


@pytest.fixture(autouse=True)
def in_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_there_are_85_rows():
    assert [row[0] for row in ROWS] == [str(number) for number in range(1, 86)]


@pytest.mark.parametrize("row", ROWS, ids=[f"{row[0]} {row[2]}" for row in ROWS])
def test_the_outcome_of_a_row_is_asserted_somewhere(row):
    number, *_, outcome = row
    here = ("dry run", "parsed", "derives", "submits")
    found = REFERENCE.findall(outcome)
    assert found or outcome.startswith(here)
    for path, name in found:
        text = (ROOT / path).read_text()
        assert not name or re.search(rf"^def {name}\(", text, re.M), f"row {number}: {path}::{name}"
    assert any(int(number) == n for n, _ in LINES) or not outcome.startswith(here[:4])


@pytest.mark.parametrize("number, line", LINES, ids=[f"{number} {line}" for number, line in LINES])
def test_a_line_of_a_row_runs_dry_or_is_parsed(number, line, capsys):
    words = shlex.split(line)
    if words[0] == "mmpt":
        importlib.import_module(f"mmpt_cli.{VERBS[words[1]][0]}").parser().parse_args(words[2:])
        return
    assert locallaunch.main([*words[2:], "--dryrun"]) == 0
    shown = capsys.readouterr().out
    assert ("saving" if "derives" in ROWS[number - 1][4] else "launching ") in shown or "sbatch" in shown


def test_classes_that_outsiders_name_are_known():
    from mmpt.models.mmfusion import MMFusion
    from mmpt.processors.dedupprocessor import CaptionDedupProcessor

    assert issubclass(
        registry.RETRIEVERS.get("VectorRetrieverDM"), registry.RETRIEVERS.get("VectorRetriever")
    )
    assert MMFusion and CaptionDedupProcessor


def test_the_three_checkpoints_of_tempclr_stand_beside_their_use():
    page = (ROOT / "docs/coming_from.md").read_text()
    for name in ("checkpoint_layernorm_OTAM", "checkpoint_layernorm_DTW", "checkpoint_allparameters_DTW"):
        assert re.search(rf"^\| `{name}` \| [^|]+ \| .*(?:projects/retri/tempclr/|the same)", page, re.M)


def test_the_packages_of_the_project_card_are_pinned():
    pinned = {
        re.split(r"[=; @]", line)[0].lower()
        for file in ("requirements.txt", "requirements-fairseq.txt")
        for line in (ROOT / file).read_text().splitlines()
    }
    assert {"torch", "transformers", "numpy", "pyyaml", "tqdm", "pandas"} <= pinned
    assert any(name.startswith("fairseq") for name in pinned)
    assert any(wanted.startswith("torch") for wanted in project_table()["dependencies"])


def test_the_top_level_names_of_the_project_card_are_there():
    files = "locallaunch.py train.py setup.py run.sh README.md DATASET.md requirements.txt".split()
    folders = "mmpt mmpt_cli projects scripts data pretrained_models tests".split()
    assert all((ROOT / name).is_file() for name in files) and all((ROOT / name).is_dir() for name in folders)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["launch", "launch --use_env", "run"])
def test_the_printed_pre_training_line_trains_one_model_in_two_processes(launcher, toy_world, tmp_path):
    settings = f"""--cpu --log-interval 1 --batch-size 1 --optimizer adam --lr [1e-4] --clip-norm 2.0
        --ddp-backend legacy_ddp --lr-scheduler polynomial_decay --total-num-update 10 --max-update 2
        --save-dir {tmp_path}/run --disable-validation --no-save --num-workers 0"""
    words = (
        f"projects/toy/norton.yaml --user-dir mmpt --task mmtask --arch mmarch --criterion mmloss {settings}"
    )
    moved = {"dataset.num_video_per_batch": 4, "dataset.bert_name": toy_world / "model"}
    for key, name in (("train_path", "how2/how2_s3d_train.lst"), ("val_path", "how2/how2_s3d_val.lst")):
        moved[f"dataset.{key}"] = toy_world / name
    moved |= {
        "dataset.vfeat_dir": toy_world / "how2/feat",
        "dataset.tfeat_dir": f"{toy_world}/how2/feat/narration.",
    }
    changes = [word for key, value in moved.items() for word in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", *f"torch.distributed.{launcher} --nproc_per_node=2 train.py".split()]
    done = subprocess.run([*command, *words.split(), *changes], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "num_updates=2" in done.stdout + done.stderr
