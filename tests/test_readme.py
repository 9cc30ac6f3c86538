"""Every command that the pages show is one that is understood, and every file they link exists."""

import importlib
import re
import shlex

import pytest

import locallaunch
from mmpt.evaluators import records
from mmpt_cli import data_run
from mmpt_cli.main import VERBS
from tests.conftest import ROOT

PAGES = [
    "README.md",
    "DATASET.md",
    "pretraining.md",
    "endtask.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "data/README.md",
]
PAGES += [str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").glob("*.md"))]
# a cell of a table, or a share in a sentence; 95 % is the width of intervals
TYPED = re.compile(r"\|\s*[+-]?\d+\.\d+|\b(?!95 ?%)\d+(?:\.\d+)? ?%")
TEXTS = {page: (ROOT / page).read_text().replace("\\\n", " ") for page in PAGES}
FILE = "projects/retri/norton/how2_pretrain.yaml"


def shown(start):
    """Command lines, in blocks and within sentences, that begin so."""
    found = set()
    for text in TEXTS.values():
        found |= set(re.findall(rf"^({start} .*)$", text, re.M)) | set(
            re.findall(rf"`({start} [^`\n]+)`", text)
        )
    return sorted({re.sub(r"\s+#.*", "", line).strip() for line in found})


LINKS = [
    (page, link)
    for page in ("README.md", "pretraining.md", "endtask.md")
    for link in re.findall(r"\]\(([\w./-]+)\)", TEXTS[page])
]


@pytest.mark.parametrize("command", shown("python locallaunch.py"))
def test_a_launcher_command_of_the_pages_has_a_dry_run(command, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    words = shlex.split(re.sub(r"\bFILE\b|mine.yaml", FILE, command).replace("NAME", "big"))[2:]
    assert locallaunch.main([*(word for word in words if word != "--dryrun"), "--dryrun"]) == 0
    assert "launching" in capsys.readouterr().out


@pytest.mark.parametrize("command", shown("mmpt"))
def test_a_command_of_the_pages_is_parsed(command):
    verb, *words = shlex.split(command)[1:]
    if len(words) < 2 or "--help" in words:  # names a verb
        assert verb == "--help" or verb in VERBS
    elif (verb, words[0]) == ("data", "convert"):
        assert words[1].replace("-", "_") in data_run.converting.converters()
    else:
        importlib.import_module(f"mmpt_cli.{VERBS[verb][0]}").parser().parse_args(words)


@pytest.mark.parametrize("page, link", LINKS)
def test_a_linked_file_exists(page, link):
    assert (ROOT / link).exists(), f"{page} links {link}"


def typed_numbers(text: str) -> list[str]:
    """Lines that state results outside of the generated blocks."""
    rest = re.sub(r"<!-- record:begin .*?" + re.escape(records.END), "", text, flags=re.DOTALL)
    return [line for line in rest.splitlines() if TYPED.search(line)]


def test_numbers_of_the_readme_come_from_records():
    assert typed_numbers(TEXTS["README.md"]) == []


RECORDED = [page for page, text in TEXTS.items() if "record:begin" in text]
FIGURE = re.compile(r"\d\.\d|\b\d+ ?(%|ms|MiB|GiB|GB)(?!\w)")


def typed_cells(text: str) -> list[str]:
    """Rows of tables with figures, outside of the blocks that records fill."""
    rest = re.sub(r"<!-- (record|results):begin .*?<!-- \1:end[^>]*-->", "", text, flags=re.DOTALL)
    rows = [line for line in rest.splitlines() if line.startswith("|")]
    return [row for row in rows if FIGURE.search(re.sub(r"`[^`]*`|\]\([^)]*\)", "", row))]


@pytest.mark.parametrize("page", RECORDED)
def test_tables_of_a_page_with_records_come_from_records(page):
    assert typed_cells(TEXTS[page]) == []


def test_a_typed_table_is_found():
    block = "<!-- record:begin x -->\n| a | 1.0 |\n<!-- record:end -->\n"
    assert typed_cells(f"{block}| loss | 12 ms |\n| 3 | `0.1` |\n") == ["| loss | 12 ms |"]


@pytest.mark.parametrize(
    "line, typed",
    [
        ("| ridge | 56.6 |", True),
        ("right in 53 % of cases", True),
        ("95 % interval", False),
        ("Python 3.11", False),
    ],
)
def test_results_that_are_typed_are_told_from_other_numbers(line, typed):
    block = "<!-- record:begin x -->\n| a | 1.0 |\n<!-- record:end -->\n"
    assert typed_numbers(block + line) == ([line] if typed else [])


@pytest.mark.parametrize("page", PAGES)
def test_tables_of_a_page_are_those_of_the_records(page):
    text = (ROOT / page).read_text()
    assert records.filled(text, ROOT / "docs/records") == text, "run: mmpt verify-results --write"


def test_every_record_is_whole_and_gives_its_cells_again():
    folders = sorted(path.parent for path in (ROOT / "docs/records").glob("*/record.json"))
    assert folders and [problem for folder in folders for problem in records.problems(folder)] == []
