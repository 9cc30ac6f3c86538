"""Losses side by side: what is run, what is kept, what the table says."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from experiments import compare_losses, compare_losses_report
from experiments.comparison import TESTS, Comparison, Run, runs
from experiments.comparison_tests import per_query
from mmpt.config import load_config
from mmpt.config.yamlfile import ConfigError
from mmpt.evaluators import Result, records
from mmpt.evaluators.paired_runs import kept
from tests.conftest import ROOT


@pytest.fixture
def in_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def write(tmp_path, **changes):
    tree = {
        "size": "tiny", "noise": ["moderate"], "seeds": [1], "updates": 2,
        "start": {"project": "projects/toy/videoclip.yaml", "updates": 2},
        "losses": ["projects/toy/losses/videoclip.yaml", "projects/toy/losses/gram.yaml"],
        "data": str(tmp_path / "data"), "out": str(tmp_path / "out"),
    }  # fmt: skip
    path = tmp_path / "compare.yaml"
    path.write_text(
        yaml.safe_dump({key: value for key, value in (tree | changes).items() if value is not None})
    )
    return str(path)


def result(row, noise="moderate", seed=1, clip=0.5):
    names = ("R1", "cosine-R1", "DTW-R1", "OTAM-R1", "cosine-DTW-R1", "cosine-OTAM-R1", "chance-R1")
    values = {test: dict.fromkeys(names, 0.25) for test in TESTS}
    values["clips"]["R1"] = clip
    queries = {
        f"{test}/{name}": [kept(np.arange(20) < 20 * value)]
        for test, of in values.items()
        for name, value in of.items()
    }
    about = {"row": row, "noise": noise, "seed": seed, "peak_mib": 600.0, "config": {}, "data": "x"}
    return {**about, "weights": "0", "values": values, "queries": queries}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A comparison of two losses, run to its end."""
    folder = tmp_path_factory.mktemp("comparison")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        path = write(folder)
        compare_losses.main([path])
    return folder, path


@pytest.mark.parametrize(
    "name, rows",
    [
        ("compare", {"videoclip", "norton", "tempclr_dtw"}),
        ("compare_tuples", {"gram", "triangle", "pmrl", "symile", "pairwise"}),
        ("compare_modalities", {"all modalities", "video alone"}),
        ("compare_gdt", {"1 cross-modal", "9 reversal +, shift +"}),
        ("compare_cosine", {"cosine_weight 0", "cosine_weight 1"}),
        ("compare_matching", {"weight 1, no warm-up"}),
    ],
)
def test_a_shipped_comparison_is_valid_down_to_its_project_files(name, rows, in_repository):
    comparison = Comparison.load(f"projects/toy/{name}.yaml")
    assert rows <= set(comparison.rows)
    for run in runs(comparison):
        assert (
            load_config(run.entry.project, run.overrides()).fairseq["optimization"]["max_update"]
            >= run.updates
        )
    for test in comparison.test_entries.values():
        assert test.config("data/elsewhere").predictor


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"nois": ["clean"]}, "nois: unknown key. Did you mean noise"),
        ({"seeds": 3}, "seeds: expected a list"),
        ({"size": "huge"}, "expected one of tiny, small, main"),
        ({"noise": ["loud"]}, "expected one of clean, moderate, heavy"),
        ({"start": {"project": "x.yaml"}}, "a start its project and updates"),
        ({"noise": ["clean", {"name": "clean", "offset_s": 9}]}, "noise: two entries are called alike"),
        ({"losses": ["a/gram.yaml", "b/gram.yaml"]}, "losses: two entries are called alike"),
        ({"losses": None}, r"incomplete: \['losses'\]"),
        ({"losses": [{"project": "a.yaml", "sets": {}}]}, "a map of project and, at will, name, set, noise"),
        (
            {"losses": [{"project": "a.yaml", "noise": ["loud"]}]},
            "a: noise: expected some of moderate, got loud",
        ),
        ({"columns": {"clip": "clip/R1"}}, "columns name tests of clips, videos, videos_background"),
        ({"lines": "seeds"}, "lines: seeds: expected one of losses, columns"),
    ],
)
def test_a_wrong_comparison_file_is_refused_in_one_message(changes, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        Comparison.load(write(tmp_path, **changes))


def test_knobs_of_the_world_are_an_axis(tmp_path):
    comparison = Comparison.load(
        write(tmp_path, noise=["clean", {"name": "late", "preset": "clean", "offset_s": 9}])
    )
    (first, clean), (second, late) = map(comparison.world, comparison.noise)
    assert (first, second) == ("clean", "late") and (clean.noise.offset_s, late.noise.offset_s) == (1.0, 9.0)


def test_starts_come_before_what_starts_from_them_and_seeds_come_last(tmp_path):
    comparison = Comparison.load(write(tmp_path, noise=["clean", "heavy"], seeds=[1, 2]))
    order = [(run.seed, run.noise, run.row) for run in runs(comparison)]
    assert order[:3] == [(1, "clean", "start"), (1, "clean", "videoclip"), (1, "clean", "gram")]
    assert [seed for seed, _, _ in order] == [1] * 6 + [2] * 6


def test_losses_of_one_seed_and_noise_start_from_the_same_weights(tmp_path, in_repository):
    comparison = Comparison.load(write(tmp_path))
    gram, start = (Run(comparison, row, "moderate", 1) for row in ("gram", "start"))
    assert f"fairseq.checkpoint.restore_file={start.checkpoint}" in gram.overrides()
    assert "fairseq.checkpoint.restore_file=null" in start.overrides()


def test_a_loss_meets_other_batches_than_its_start(tmp_path, in_repository):
    comparison = Comparison.load(write(tmp_path))
    gram, start = (Run(comparison, row, "moderate", 1) for row in ("gram", "start"))
    assert "fairseq.common.seed=1" in start.overrides()
    assert "fairseq.common.seed=1001" in gram.overrides()


@pytest.mark.slow
def test_the_comparison_trains_evaluates_and_reports_every_loss(done, in_repository):
    folder, path = done
    record = records.read_record(folder / "out/record")
    assert set(record["step_cpu_ms"]) == {"videoclip", "gram"} and min(record["step_cpu_ms"].values()) > 0
    assert records.problems(folder / "out/record") == []
    assert [row[0] for row in record["tables"].popitem()[1][2:]] == ["start", "videoclip", "gram"]
    for run in runs(Comparison.load(path)):
        found = run.result()
        assert found["peak_mib"] > 100
        assert all(0 <= found["values"][test]["R1"] <= 1 for test in ("clips", "videos", "videos_background"))
    assert (folder / "out/results.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_second_call_trains_nothing_again(done, capsys, in_repository):
    folder, path = done
    checkpoint = folder / "out/moderate/seed1/gram/checkpoint_last.pt"
    before = checkpoint.stat().st_mtime_ns
    compare_losses.main([path])
    assert capsys.readouterr().out.count("done already") == 3
    assert checkpoint.stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_folder_of_other_settings_is_left_alone(done, in_repository):
    folder, _ = done
    with pytest.raises(SystemExit, match="other settings"):
        compare_losses.main([write(folder, updates=3)])


def test_a_loss_can_change_keys_and_keep_to_some_worlds(tmp_path, in_repository):
    entry = {
        "name": "cold",
        "project": "projects/toy/losses/gram.yaml",
        "set": {"loss.temperature": 0.5},
        "noise": ["heavy"],
    }
    comparison = Comparison.load(write(tmp_path, noise=["clean", "heavy"], losses=[entry], start=None))
    (run,) = runs(comparison)
    assert (run.row, run.noise) == ("cold", "heavy") and "loss.temperature=0.5" in run.overrides()
    assert "fairseq.checkpoint.restore_file=null" in run.overrides()


def reported(results, tmp_path, **changes):
    """The comparison, and its tables."""
    comparison = Comparison.load(write(tmp_path, **changes))
    record = tmp_path / "record"
    compare_losses_report.write_report(results, {"gram": 123.4}, comparison, record, tmp_path / "figure.png")
    assert records.problems(record) == [] and (tmp_path / "figure.png").is_file()
    return comparison, records.tables(record)


def test_a_table_shows_mean_and_spread_over_seeds(tmp_path):
    _, tables = reported([result("gram", clip=0.5), result("gram", seed=2, clip=0.6)], tmp_path)
    ((title, rows),) = tables.items()
    assert title == "percent, dot product / cosine, mean ± standard deviation over seeds"
    assert rows[1][:3] == ["chance", "", "25.0"]
    assert rows[2][:3] == ["gram", "2", "55.0 ± 7.1 / 25.0 ± 0.0"]
    assert rows[2][-2:] == ["123", "600"]


def test_only_shares_are_shown_in_percent(tmp_path):
    found = result("gram")
    found["queries"]["clips/alignment-tv-hubness"] = 1.5
    columns = {"hubs": "clips/alignment-tv-hubness", "clip": "clips/R1"}
    _, tables = reported([found], tmp_path, columns=columns, drawn=["clip"])
    assert next(iter(tables.values()))[2][2:4] == ["50.0", "1.5"]


def test_few_losses_on_several_worlds_share_a_table(tmp_path):
    results = [result("gram", noise) for noise in ("clean", "heavy")]
    settings = {"losses": ["projects/toy/losses/gram.yaml"], "lines": "columns"}
    _, tables = reported(results, tmp_path, noise=["clean", "heavy"], **settings)
    (rows,) = tables.values()
    assert [row[:2] for row in rows[1:]] == [["clean", "chance"], ["clean", "gram"], ["heavy", "gram"]]


def test_a_record_refuses_queries_that_do_not_give_the_measure():
    ranks = np.array([1, 2, 1, 3])
    queries = per_query(Result({"DTW-R1": 0.5}, "DTW-R1", {}, {}, {}, {"ranks_DTW": ranks}), "DTW-R1")
    assert queries == [kept(np.array([True, False, True, False]))]
    with pytest.raises(ValueError, match=r"DTW-R1: is 0.25, its queries give 0.5"):
        per_query(Result({"DTW-R1": 0.25}, "DTW-R1", {}, {}, {}, {"ranks_DTW": ranks}), "DTW-R1")


def test_the_queries_of_splits_are_kept_apart(tmp_path):
    hits = np.array([1.0, 0.0, 1.0])
    facts = {"queries of each split": {"va": [2, 1]}}
    found = result("gram")
    found["queries"]["clips/R1"] = per_query(
        Result({"va-probe-acc": 0.75}, "", {}, {}, facts, {"va-probe-acc": hits}), "va-probe-acc"
    )
    _, tables = reported([found], tmp_path)
    assert next(iter(tables.values()))[2][2] == "75.0 / 25.0"


def test_a_figure_has_a_line_a_loss_or_a_line_a_column(tmp_path):
    results = [
        result(row, noise, clip=clip)
        for noise, clip in (("clean", 0.5), ("heavy", 0.25))
        for row in ("videoclip", "gram")
    ]
    settings = {
        "noise": ["clean", "heavy"],
        "columns": {"clip": ["clips/R1", "clips/cosine-R1"], "dtw": "videos/DTW-R1"},
        "drawn": ["clip"],
    }
    panels, names = compare_losses_report.panels_of(results, Comparison.load(write(tmp_path, **settings)))
    assert names == ["clean", "heavy"]
    assert panels == {
        ("", "clip\nR@1, percent, cosine"): dict.fromkeys(("videoclip", "gram"), [(25.0,) * 3] * 2)
    }
    panels, names = compare_losses_report.panels_of(
        results, Comparison.load(write(tmp_path, **settings, lines="columns"))
    )
    assert names == ["clean, videoclip", "clean, gram", "heavy, videoclip", "heavy, gram"]
    assert panels["", "dot product\nR@1, percent"] == {"clip": [(50.0,) * 3] * 2 + [(25.0,) * 3] * 2}


def test_more_losses_than_marks_are_drawn_in_groups(tmp_path):
    names = [f"loss {number}" for number in range(9)]
    results = [result(name, noise) for noise in ("clean", "heavy") for name in names]
    losses = [{"name": name, "project": "projects/toy/losses/gram.yaml"} for name in names]
    reported(results, tmp_path, noise=["clean", "heavy"], drawn=["clip"], losses=losses)
    panels, _ = compare_losses_report.panels_of(
        results, Comparison.load(write(tmp_path, noise=["clean", "heavy"], drawn=["clip"], losses=losses))
    )
    assert [len(marks) for marks in panels.values()] == [7, 2]


def test_a_bar_is_the_spread_over_seeds():
    assert compare_losses_report.mean_and_spread([1.0, 3.0]) == (2.0, 2.0 - 2**0.5, 2.0 + 2**0.5)
    assert compare_losses_report.mean_and_spread([]) is None


def test_a_figure_of_one_world_shows_the_losses_side_by_side(tmp_path):
    results = [result("videoclip"), result("gram")]
    panels, names = compare_losses_report.panels_of(results, Comparison.load(write(tmp_path, drawn=["clip"])))
    assert names == ["videoclip", "gram"]
    assert panels == {
        ("", "clip\nR@1, percent"): {"dot product": [(50.0,) * 3] * 2, "cosine": [(25.0,) * 3] * 2}
    }
