"""The figures of pages show what their records hold."""

import json
import re

import pytest

from experiments.compare_losses_report import SHARE, draw
from experiments.comparison import Comparison
from experiments.noisy_narration_report import write_figure
from mmpt.evaluators.paired_runs import shown
from mmpt.evaluators.records import PER_QUERY, RECORD
from tests.conftest import ROOT

matplotlib = pytest.importorskip("matplotlib")
RECORDS = ROOT / "docs/records"


def results_of(name):
    """What `draw` reads of each run, from a record."""
    per_query = json.loads((RECORDS / name / PER_QUERY).read_text())
    losses = json.loads((RECORDS / name / RECORD).read_text())["comparison"]["losses"]
    names = [loss["name"] for loss in losses]
    for world in next(iter(per_query.values())):
        for row in sorted(per_query, key=lambda row: names.index(row) if row in names else -1):
            for run in range(max(map(len, per_query[row].get(world, {}).values()), default=0)):
                values = {}
                for measure, runs in per_query[row][world].items():
                    test, _, kind = measure.partition("/")
                    value = shown(runs[run])
                    values.setdefault(test, {})[kind] = value / 100 if SHARE.search(kind) else value
                yield {"row": row, "noise": world, "values": values}


def drawn(path):
    """The figure as text, where this matplotlib drew it."""
    text = path.with_suffix(".svg").read_text()
    version = re.search(r"Matplotlib v([\d.]+)", text)[1].rstrip(".")
    if version != matplotlib.__version__:
        pytest.skip(f"{path.name} was drawn by matplotlib {version}, here is {matplotlib.__version__}")
    return text


@pytest.mark.parametrize(
    "page, name",
    [
        ("compare_losses", "compare_tuples"),
        ("compare_modalities", "compare_gdt"),
        ("compare_modalities", "compare_modalities"),
    ],
)
def test_the_figure_of_a_comparison_shows_its_record(page, name, tmp_path, monkeypatch):
    there = drawn(ROOT / f"docs/{page}_{name}.png")
    monkeypatch.chdir(ROOT)
    comparison = Comparison.load(f"projects/toy/{name}.yaml")
    assert drawn(draw(tmp_path / "new.png", list(results_of(name)), comparison)) == there


def test_the_figure_of_noisy_narration_shows_its_record(tmp_path):
    there = drawn(ROOT / "docs/compare_losses.png")
    assert drawn(write_figure(tmp_path / "new.png", RECORDS / "compare_noise")) == there
