"""docs/coming_from.md against the parsers, project files and flags that it names."""

import re
import shlex
from pathlib import Path

import pytest

from mmpt.config import load_config, recursive_config
from mmpt.config.load import leaves
from mmpt.launch.gram_flags import FLAGS, INSTEAD, JOBS, WITHOUT_EFFECT
from mmpt.launch.gram_json import E2E, OURS
from mmpt.utils.schedules import warmup_multistep
from mmpt_cli.train import parser
from tests.conftest import ROOT

PAGE = (ROOT / "docs/coming_from.md").read_text()
COUNTS = {"main_gdt.py": 65, "eval_video.py": 75, "main_stica.py": 64, "run.py": 89}
OPTIONS = {
    name: (file, [[cell.strip() for cell in line.strip("|").split("|")] for line in rows.splitlines()])
    for name, file, rows in re.findall(
        r"### Options of (\S+): (\S+)\n.*?\| --- \| --- \| --- \|\n((?:\|[^\n]*\n)+)", PAGE, flags=re.DOTALL
    )
}
ROWS = [
    pytest.param(file, *row[:3], id=f"{name} {row[0]}")
    for name, (file, rows) in OPTIONS.items()
    for row in rows
]


@pytest.fixture(autouse=True)
def in_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def quoted(cell):
    return re.findall(r"`([^`]+)`", cell)


def test_every_option_of_the_releases_has_a_row():
    assert {name: len(rows) for name, (_, rows) in OPTIONS.items()} == COUNTS
    for name, (_, rows) in OPTIONS.items():
        assert len({row[0] for row in rows}) == len(rows), name


@pytest.mark.parametrize(("file", "theirs", "ours", "remark"), ROWS)
def test_what_an_option_became_is_understood(file, theirs, ours, remark):
    assert re.fullmatch(r"`--[\w-]+`", theirs)
    if ours == "none":
        assert remark
        return
    elsewhere = re.search(r"in `(projects/[\w/]+\.yaml)`", remark)
    for text in quoted(ours):
        if text.startswith("--"):
            parser().parse_args([file, *shlex.split(text)])
        else:
            load_config(elsewhere[1] if elsewhere else file, [text])


def test_gdt_without_a_schedule_keeps_the_rate_of_one_process():
    file, rows = OPTIONS["main_gdt.py"]
    (settings,) = (quoted(row[1]) for row in rows if row[0] == "`--use_scheduler`")
    of = load_config(file, settings).fairseq["optimization"]
    names = ("lr_multiplier", "lr_warmup_epochs", "lr_milestones")
    assert {warmup_multistep(epoch, 0.01, *(of[name] for name in names)) for epoch in range(200)} == {0.01}


def test_the_table_of_grams_flags_says_what_becomes_of_each():
    for theirs, ours, *remark in OPTIONS["run.py"][1]:
        flag = quoted(theirs)[0].removeprefix("--")
        assert (ours != "none") == (flag in FLAGS or flag in JOBS), flag
        assert remark[0].startswith("refused") == (flag in INSTEAD), flag
        if flag in WITHOUT_EFFECT:
            assert remark[0].startswith("no effect there"), flag


def test_files_of_ours_in_the_tables_exist():
    derived = {"projects/retri/videoclip", "projects/mtm/vlm"}
    for name in set(re.findall(r"projects/[\w/]+\.yaml", PAGE)):
        assert (ROOT / name).is_file() or str(Path(name).parent) in derived, name


def test_every_json_file_of_gram_is_in_the_table_beside_our_file():
    for theirs, ours in OURS.items():
        assert f"| `{theirs}.json` | `{E2E}/{ours}.yaml`" in PAGE


def test_what_the_papers_files_are_said_to_switch_on_they_do_and_the_correction_is_understood():
    table = PAGE.split("## What the papers' files switch on")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`(?:retri|mtm)/.*?) \| (.*?) \| (.*?) \|", table, flags=re.M)
    assert len(rows) == 9
    for files, released, corrected in rows:
        folder = Path("projects", quoted(files)[0]).parent
        for name in quoted(files):
            if not name.endswith(".yaml"):
                continue
            path = str(Path("projects", name) if "/" in name else folder / name)
            tree = recursive_config(path)
            if "task_group" in tree:
                tree = tree["task_group"]["pretrain"]
            for key, value in (text.split(": ") for text in quoted(released)):
                section, _, rest = key.partition(".")
                said = tree[section] if "losses" not in tree[section] else tree[section]["losses"][0]
                assert str(dict(leaves(said))[rest]).lower() == value, (path, key)
            if "task_group" not in recursive_config(path) and "losses" not in tree.get("loss", {}):
                load_config(path, quoted(corrected))
