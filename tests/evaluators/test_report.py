"""The report: three files, a table, bounds for missing ids."""

import json

import numpy as np
import pytest

from mmpt.config import EvalConfig
from mmpt.evaluators import Report, Result, RetrievalMetric
from mmpt.evaluators.report import describe_data, markdown_table, text_table


def retrieval_report(**parts):
    scores = np.random.default_rng(0).normal(size=(30, 30)) + 2 * np.eye(30)
    return Report("toy", RetrievalMetric(EvalConfig(bootstrap=20)).evaluate(scores=scores), **parts)


def test_results_are_written_as_json_markdown_and_arrays(tmp_path):
    report = retrieval_report(settings={"metric": "RetrievalMetric"})
    path = report.write(tmp_path / "new" / "folder")
    assert json.loads(path.read_text())["values"] == report.result.values
    assert "| main |" in path.with_name("results.md").read_text()
    with np.load(path.with_name("per_query.npz")) as stored:
        assert sorted(stored.files) == ["ranks", "ranks_V2T"]


def test_the_table_has_measures_as_rows_and_chance_below():
    rows = retrieval_report().table()
    assert rows[0] == ["measure", "R1", "R5", "R10", "MR"]
    assert [row[0] for row in rows[1:]] == ["main", "V2T", "chance"]
    assert rows[1][1].count("[") == 1 and rows[3][1] == "0.0333"


@pytest.mark.parametrize(
    "other, rows", [(0.1, [["chance", "0.1000"]]), (0.2, [["chance tv", "0.1000"], ["chance ta", "0.2000"]])]
)
def test_a_trivial_model_has_one_row_where_its_measures_agree_and_one_each_elsewhere(other, rows):
    result = Result(
        {"tv-R1": 0.5, "ta-R1": 0.4}, "tv-R1", baselines={"chance": {"tv-R1": 0.1, "ta-R1": other}}
    )
    assert Report("toy", result).table()[3:] == rows


@pytest.mark.parametrize(
    "other, rows",
    [(0.1, [["chance", "0.1000", ""]]), (0.2, [["chance", "0.1000", ""], ["chance DTW", "0.2000", ""]])],
)
def test_a_trivial_model_has_no_row_for_a_measure_that_it_has_no_number_of(other, rows):
    values = {"R1": 0.5, "DTW-R1": 0.4, "calibrated-coverage": 0.9}
    result = Result(values, "R1", baselines={"chance": {"R1": 0.1, "DTW-R1": other}})
    assert Report("toy", result).table()[4:] == rows


def test_facts_that_are_maps_of_numbers_are_one_table_of_page_and_terminal():
    facts = {"gallery": 4, "alignment tv": {"hubness": 0.5}, "alignment tva": {"hubness": 1.5, "own": 0.25}}
    report = Report("toy", Result({"R1": 0.5}, "R1", facts=facts))
    rows = [["fact", "alignment tv", "alignment tva"], ["hubness", "0.5", "1.5"], ["own", "", "0.25"]]
    assert report.numbers() == rows and report.facts() == ["gallery: 4"]
    assert markdown_table(rows) in report.markdown() and text_table(rows) in report.text()
    assert "| fact |" not in Report("toy", Result({"R1": 0.5}, "R1", facts={"gallery": 4})).markdown()


def test_missing_items_bound_what_the_recall_could_be():
    result = Result(
        {"R1": 0.5}, "R1", per_query={"ranks": np.array([1.0, 1.0, 4.0, 9.0])}, facts={"gallery": 4}
    )
    bounds = Report("toy", result, missing={"without features": ["x", "x"]}, missing_queries=2).reach()
    assert bounds["R1"] == (0, pytest.approx(4 / 6))
    assert bounds["R5"] == (pytest.approx(2 / 6), pytest.approx(5 / 6))


def test_missing_items_bound_what_an_accuracy_could_be():
    result = Result({"acc": 0.75}, "acc", per_query={"acc": np.array([1.0, 1.0, 1.0, 0.0])})
    assert Report("toy", result, missing_queries=1).reach() == {
        "acc": (pytest.approx(3 / 5), pytest.approx(4 / 5))
    }


def test_no_bounds_are_claimed_for_a_number_that_is_no_mean_over_queries():
    result = Result(
        {"frame_acc": 0.6},
        "frame_acc",
        per_query={"frame_acc": np.array([1.0, 0.0]), "weight": np.array([6, 4])},
    )
    assert Report("toy", result, missing_queries=1).reach() == {}


def test_no_bounds_are_claimed_when_it_is_unknown_how_many_queries_are_missing():
    result = Result({"R1": 0.5}, "R1", per_query={"ranks": np.array([1.0, 4.0])}, facts={"gallery": 2})
    assert Report("toy", result, missing={"without features": ["x"]}).reach() == {}


def test_what_differs_from_the_published_protocol_is_told():
    settings = {
        "dataset": {"meta_processor": "MSRVTTMetaProcessor", "max_len": 64},
        "metric": "RetrievalMetric",
    }
    report = retrieval_report(settings=settings)
    assert (
        "differs from the published protocol: test set: 30 against a gallery of 30; published: 1000 of "
        "1000 videos" in report.text()
    )
    assert "dataset.max_len: 64; published: 96" in report.to_dict()["differs_from_published"]


def test_pictures_are_named_in_the_page():
    assert "![ranks](ranks.png)" in retrieval_report(plots=["ranks.png"]).markdown()


def test_a_folder_of_features_shows_its_passport():
    entry = {"key": "vfeat_dir", "path": "features", "entries": 3}
    assert (
        "| 3 entries, backbone s3d |"
        in retrieval_report(data=[entry | {"passports": [{"backbone": "s3d"}]}]).markdown()
    )
    assert "| 3 entries, no passport |" in retrieval_report(data=[entry | {"passports": []}]).markdown()


def test_missing_ids_checkpoint_and_warnings_are_told():
    result = Result({"acc": 0.5}, "acc", warnings=["odd gallery"])
    checkpoint = {"path": "a.pt", "verdict": "all 3 tensors loaded"}
    report = Report(
        "toy", result, checkpoint, missing={"without features": list("abcdefgg")}, warnings=["odd features"]
    )
    for text in (report.text(), report.markdown()):
        assert "8 items of 7 ids without features: a, b, c, d, e, ..." in text
        assert "a.pt: all 3 tensors loaded" in text and "odd gallery" in text and "odd features" in text
    assert report.to_dict()["warnings"] == ["odd gallery", "odd features"]


def test_numbers_that_json_does_not_know_become_null(tmp_path):
    path = Report("toy", Result({"acc": float("nan")}, "acc", facts={"n": np.int64(3)})).write(tmp_path)
    found = json.loads(path.read_text())
    assert found["values"]["acc"] is None and found["facts"]["n"] == 3


def test_data_files_are_described_by_checksum_and_folders_by_entries(tmp_path):
    (tmp_path / "list.csv").write_text("abc")
    found = describe_data(
        {
            "test_path": str(tmp_path / "list.csv"),
            "vfeat_dir": str(tmp_path),
            "json_path": "absent.json",
            "max_len": 3,
        }
    )
    assert found[0]["sha256"].startswith("ba7816bf") and found[1]["entries"] == 1 and found[2]["absent"]


def test_tables_are_aligned():
    assert text_table([["a", "bb"], ["ccc", "d"]]) == "a    bb\nccc  d"
    assert markdown_table([["a", "b"], ["1", "2"]]).splitlines() == ["| a | b |", "|---|---|", "| 1 | 2 |"]
