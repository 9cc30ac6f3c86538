"""The notebooks run from the first cell to the last, and keep what they print and draw."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import ROOT

pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("matplotlib")
notebooks = pytest.importorskip("scripts.docs.notebooks")

PATHS = sorted((ROOT / "projects/notebooks").glob("*.ipynb"))
NAMES = {"quick_start", "transport_plan", "three_alignments", "volumes", "your_own_data", "audit_a_number"}


@pytest.fixture(scope="module")
def executed():
    """All notebooks, run side by side: most of their time is spent starting."""
    with ThreadPoolExecutor(2) as pool, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("MPLBACKEND", "agg")
        return dict(zip((path.stem for path in PATHS), pool.map(notebooks.run, PATHS), strict=True))


def printed(notebook):
    return "".join(
        output.text
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output.output_type == "stream"
    )


def test_there_is_a_notebook_for_each_first_step():
    assert {path.stem for path in PATHS} == NAMES


DRAWING = {"audit_a_number", "three_alignments", "transport_plan"}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_notebook_is_short_and_keeps_its_outputs_without_anything_of_the_machine(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert len(notebook.cells) < 12
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert {output.output_type for output in outputs} <= {"stream", "display_data"}
    assert all(cell.get("execution_count") is None for cell in notebook.cells)
    text = printed(notebook)
    assert text and not re.search(r"/tmp|/home|/root|[Ww]arning", text)
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert bool(pictures) == (path.stem in DRAWING)


def test_what_is_of_a_machine_is_left_out():
    v4 = nbformat.v4
    data = {"image/png": "", "text/plain": "a picture", "text/html": "<b>"}
    outputs = [
        v4.new_output("stream", name="stderr", text="a warning"),
        v4.new_output("stream", name="stdout", text="kept"),
        v4.new_output("execute_result", data, execution_count=3),
    ]
    cell = v4.new_code_cell("x", execution_count=3, outputs=outputs, metadata={"execution": {"at": "noon"}})
    (cell,) = notebooks.strip(v4.new_notebook(cells=[cell])).cells
    assert printed(v4.new_notebook(cells=[cell])) == "kept" and cell.execution_count is None
    assert [set(output.get("data", ())) for output in cell.outputs] == [set(), {"image/png", "text/plain"}]
    assert not cell.metadata


def test_quick_start_puts_captions_where_a_trained_model_sees_them_and_finds_moments(executed):
    text = printed(executed["quick_start"])
    right, of = map(int, re.search(r"(\d+) of (\d+) captions", text).groups())
    assert right > of / 2 and text.count(" s\n") >= 3


def test_an_audit_names_what_makes_a_number_lower_and_what_makes_it_higher(executed):
    text = printed(executed["audit_a_number"])
    assert "dot instead of cosine" in text and text.rstrip().endswith("dual softmax, scale 50")


def percents(line):
    return [int(x) for x in re.findall(r"(\d+)%", line)]


def test_bucket_takes_captions_of_nothing_and_sharpens_the_plan(executed):
    kept, right = (line for line in printed(executed["transport_plan"]).splitlines() if "%" in line)
    assert percents(kept)[0] > 2 * percents(kept)[1] and percents(right)[1] > percents(right)[0] > 30


def test_otam_leaves_out_what_the_middle_of_a_video_does_not_show(executed):
    line = next(
        line
        for line in printed(executed["three_alignments"]).splitlines()
        if line.startswith("DTW") and "OTAM" in line
    )
    dtw, otam, _ = percents(line)
    assert otam > dtw + 20


def test_transport_does_not_care_for_the_order_of_captions(executed):
    lines = [
        line
        for line in printed(executed["three_alignments"]).splitlines()
        if "backwards" in line and "%" in line
    ]
    rows = {line.split()[0]: percents(line) for line in lines}
    assert rows["transport"][0] == rows["transport"][1] and rows["DTW"][0] > rows["DTW"][1] + 30


def test_own_data_set_trains_and_gets_better(executed):
    before, after = (int(x) for x in re.findall(r"median rank (\d+)", printed(executed["your_own_data"])))
    assert after < before


def test_volumes_are_smaller_with_the_own_clip(executed):
    own, other = re.search(r"own clip ([\d.]+), with others ([\d.]+)", printed(executed["volumes"])).groups()
    assert float(own) < float(other)
