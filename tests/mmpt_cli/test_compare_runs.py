"""Two runs of one test set side by side."""

import numpy as np
import pytest

from mmpt_cli import compare_runs


def save(folder, **arrays):
    folder.mkdir()
    np.savez(folder / "per_query.npz", **arrays)
    return str(folder)


def test_the_table_shows_both_runs_their_difference_and_its_interval(tmp_path, capsys):
    ids = np.array([f"v{i}" for i in range(200)])
    rng = np.random.default_rng(0)
    ranks = rng.integers(1, 20, 200).astype(float)
    a = save(tmp_path / "a", ranks=ranks, ranks_DTW=ranks, ids=ids)
    b = save(tmp_path / "b", ranks=np.maximum(ranks - 4, 1), ranks_DTW=ranks, ids=ids)
    compare_runs.main([a, b, "--samples", "200"])
    lines = capsys.readouterr().out.splitlines()
    r1, dtw = (next(line.split() for line in lines if line.startswith(name)) for name in ("R1 ", "DTW-R1"))
    assert float(r1[3]) > 0 and float(r1[-1]) < 0.02
    assert float(dtw[3]) == 0 and float(dtw[-1]) == 1


def test_queries_are_matched_by_id_whatever_their_order(tmp_path, capsys):
    ids, ranks = np.array(["x", "y", "z"]), np.array([1.0, 2.0, 30.0])
    a = save(tmp_path / "a", ranks=ranks, ids=ids)
    b = save(tmp_path / "b", ranks=ranks[[2, 0, 1]], ids=ids[[2, 0, 1]])
    compare_runs.main([a, b, "--samples", "20"])
    assert "most changed" not in capsys.readouterr().out


def test_the_most_changed_queries_are_listed_by_ratio(tmp_path, capsys):
    ids = np.array(["x", "y", "z"])
    a = save(tmp_path / "a", ranks=np.array([1.0, 100.0, 7.0]), ids=ids)
    b = save(tmp_path / "b", ranks=np.array([4.0, 110.0, 7.0]), ids=ids)
    compare_runs.main([a, b, "--samples", "20"])
    listed = capsys.readouterr().out.split("most changed queries:")[1].split()
    assert listed[-6:] == ["x", "1", "4", "y", "100", "110"]


def test_a_mean_over_queries_is_compared_under_its_name(tmp_path, capsys):
    a = save(tmp_path / "a", acc=np.array([0.0, 1, 0, 1]))
    b = save(tmp_path / "b", acc=np.array([1.0, 1, 1, 1]))
    compare_runs.main([a, b, "--samples", "50"])
    assert capsys.readouterr().out.splitlines()[1].split()[:4] == ["acc", "0.5000", "1.0000", "+0.5000"]


def test_what_weighs_differently_is_pooled_as_in_the_report(tmp_path, capsys):
    about = {
        "weight": np.array([1, 3, 4]),
        "group": np.array(["x", "x", "y"]),
        "ids": np.array(["v", "w", "z"]),
    }
    a = save(tmp_path / "a", recall=np.array([1.0, 0, 0.5]), **about)
    b = save(tmp_path / "b", recall=np.array([1.0, 1, 0.5]), **about)
    compare_runs.main([a, b, "--samples", "50"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1][:4] == ["recall", "0.3750", "0.7500", "+0.3750"]
    assert lines[-2:] == [["query", "recall", "in", "A", "recall", "in", "B"], ["w", "0", "1"]]


def test_runs_without_a_common_measure_are_refused(tmp_path):
    a, b = save(tmp_path / "a", acc=np.ones(2)), save(tmp_path / "b", recall=np.ones(2))
    with pytest.raises(ValueError, match="A has acc, B has recall"):
        compare_runs.main([a, b])


def test_unnamed_runs_of_different_length_are_refused(tmp_path):
    a, b = save(tmp_path / "a", acc=np.ones(2)), save(tmp_path / "b", acc=np.ones(3))
    with pytest.raises(ValueError, match="2 and 3 queries"):
        compare_runs.main([a, b])


def test_runs_on_different_test_sets_are_refused(tmp_path):
    a = save(tmp_path / "a", ranks=np.ones(2), ids=np.array(["x", "y"]))
    b = save(tmp_path / "b", ranks=np.ones(2), ids=np.array(["x", "w"]))
    with pytest.raises(ValueError, match="1 only in A, 1 only in B"):
        compare_runs.main([a, b])


def test_a_folder_without_results_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="per_query.npz"):
        compare_runs.main([str(tmp_path), str(tmp_path)])


def test_results_that_are_cut_off_are_named_with_what_is_wrong(tmp_path):
    folder = save(tmp_path / "a", ranks=np.ones(2))
    with open(f"{folder}/per_query.npz", "r+b") as file:
        file.truncate(100)
    with pytest.raises(ValueError, match=r"per_query\.npz: not a whole .* not a zip file\. Evaluate again"):
        compare_runs.main([folder, folder])
