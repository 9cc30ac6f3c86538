"""Pictures are written, and inputs of different size refused."""

import re

import numpy as np
import pytest

from mmpt.evaluators import plots

pytest.importorskip("matplotlib")


def svg(path):
    return path.with_suffix(".svg").read_text()


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG") and "<svg" in svg(path)


def words(path):
    return set(re.findall(r">([^<>]+)</text>", svg(path)))


def test_the_alignment_picture_names_what_it_shows(tmp_path):
    clips = [(8.0 * i, 8.0 * i + 8) for i in range(5)]
    captions, shown, said = ["chop", "hello", "fry " * 30], [(0.0, 8.0), None, (24.0, 40.0)], [(0, 3)] * 3
    frames = [((0.0, 20.0), np.zeros((6, 8, 3)), "chop onion"), ((20.0, 40.0), np.ones((6, 8, 3)), "")]
    path, plan = tmp_path / "new" / "a.png", np.eye(3, 5)
    plots.plot_alignment(path, plan, clips, captions, truth=shown, said=said, frames=frames, title="a video")
    assert is_png(path) and svg(path).count("<image") >= len(frames)
    assert {"chop", "hello", "a video", "chop onion", "where it is shown", "when it is said"} <= words(path)
    plots.plot_alignment(path, plan, clips, captions, said=said)
    assert "when it is said" in words(path) and not {"where it is shown", "chop onion"} & words(path)


def test_ranks_stand_beside_median_and_chance(tmp_path):
    path = plots.plot_rank_histogram(tmp_path / "b.png", [1, 1.5, 7], 10)
    assert {"median 1.5", "chance 5.5", "1", "10"} <= words(path)


def test_every_bar_of_the_histogram_holds_whole_ranks_and_the_first_one_rank_1_alone():
    edges = plots.rank_edges(512)
    assert edges[:2].tolist() == [0.5, 1.5] and edges[-1] == 512.5 and (edges % 1 == 0.5).all()


def test_a_plan_of_another_size_is_refused(tmp_path):
    with pytest.raises(ValueError, match="plan is .2, 5. for 3 captions and 5 clips"):
        plots.plot_alignment(tmp_path / "a.png", np.ones((2, 5)), [(0, 1)] * 5, ["a", "b", "c"])


def test_paths_are_drawn_over_the_cost(tmp_path):
    paths = {"DTW": np.eye(3, 5) > 0, "none": np.zeros((3, 5), dtype=bool)}
    assert is_png(plots.plot_paths(tmp_path / "d.png", np.ones((3, 5)), paths, np.eye(3, 5), "one video"))


def test_the_timeline_is_drawn_even_where_no_label_occurs(tmp_path):
    truth = np.arange(8)[:, None] // 4 == np.arange(2)
    assert is_png(plots.plot_timeline(tmp_path / "e.png", truth, ~truth, ["chop", "fry"]))
    assert is_png(plots.plot_timeline(tmp_path / "f.png", truth[:, :0], truth[:, :0], []))


def test_a_timeline_of_another_size_is_refused(tmp_path):
    with pytest.raises(ValueError, match="truth is .4, 2., prediction .5, 2. for 2 names"):
        plots.plot_timeline(tmp_path / "a.png", np.ones((4, 2)), np.ones((5, 2)), ["a", "b"])


def test_runs_are_unbroken_stretches():
    assert plots.runs(np.array([True, True, False, True])) == [(0, 2), (3, 1)]
    assert plots.runs(np.zeros(3, bool)) == []


def test_ranks_are_drawn(tmp_path):
    assert is_png(plots.plot_rank_histogram(tmp_path / "b.png", [1, 1.5, 7], 10))


def test_the_axes_of_thinned_scores_count_the_whole_matrix(tmp_path):
    path = plots.plot_score_matrix(tmp_path / "c.png", np.eye(4), (40, 4000))
    assert is_png(path) and {"40", "4000", "caption", "clip"} <= words(path)


def test_a_shift_curve_shows_what_moves_and_what_does_not(tmp_path):
    curve = {"DTW": {"-1": 0.5, "0": 0.5, "1": 0.5}, "exact-DTW": {"-1": 0.9, "0": 0.5, "1": 0.1}}
    assert is_png(plots.plot_shift_curve(tmp_path / "shift.png", (-1, 0, 1), curve))


def test_dots_have_a_panel_for_each_measure_and_group_and_at_most_seven_marks(tmp_path):
    points = [(1.0, 0.5, 2.0), None]
    panels = {(group, measure): {"a": points} for group in ("x", "y") for measure in ("R@1", "DTW")}
    path = plots.plot_dots(tmp_path / "d.png", panels, ["calm", "very late"], "points", differences=True)
    assert is_png(path) and {"x", "y", "R@1", "DTW", "calm", "very late", "points"} <= words(path)
    with pytest.raises(ValueError, match="at most 7 marks"):
        plots.plot_dots(path, {("x", "R@1"): dict.fromkeys("abcdefgh", points)}, ["a", "b"])
