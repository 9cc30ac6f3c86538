"""Differences of several runs, paired over queries and seeds."""

from __future__ import annotations

import numpy as np
import pytest

from mmpt.evaluators import records
from mmpt.evaluators.paired_runs import VIDEOS, crossed, detectable, difference, holm, packed, share, unpacked

RNG = np.random.default_rng(0)


def test_hits_come_back_as_they_were_packed():
    hits = RNG.random(37) < 0.5
    assert len(packed(hits)) == 10 and (unpacked(packed(hits), 37) == hits).all()


def test_the_spread_is_that_of_videos_where_runs_agree():
    of_video = RNG.normal(size=200)
    found = crossed(np.tile(of_video, (2, 4, 1)), range(200))
    assert found.value == pytest.approx(of_video.mean())
    assert found.sd == pytest.approx(of_video.std() / 200**0.5, rel=0.1)


def test_the_spread_is_that_of_runs_where_queries_agree():
    of_run = RNG.normal(size=(5, 4, 1))
    expected = (of_run.var(axis=1, ddof=1).mean() / 4 / 5) ** 0.5  # unbiased
    assert crossed(np.tile(of_run, (1, 1, 30)), range(30)).sd == pytest.approx(expected, rel=0.1)


def test_queries_of_one_video_count_as_one_draw():
    differences = np.tile(np.repeat(RNG.normal(size=40), 5), (1, 3, 1))
    together, apart = (crossed(differences, videos) for videos in (np.arange(200) // 5, range(200)))
    assert together.sd > 1.5 * apart.sd


def test_no_difference_has_no_small_p_and_a_large_one_has():
    assert crossed(RNG.choice([-1.0, 0, 1], size=(3, 4, 100)), range(100)).p > 0.05
    assert crossed(RNG.choice([0.0, 1], size=(3, 4, 100)), range(100)).p < 0.002


def test_holm_multiplies_by_what_is_left_and_never_falls():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_a_single_comparison_finds_2_8_standard_errors_in_four_of_five():
    assert detectable(1.0, family=1) == pytest.approx(2.80, abs=0.005)
    assert detectable(1.0, family=10) == pytest.approx(3.65, abs=0.005)


def test_cells_of_runs_are_derived_from_their_queries_and_bold_where_holm_finds_them(tmp_path):
    hits = {"a": np.zeros(80), "b": np.ones(80), "c": RNG.random(80) < 0.03}
    per_query = {row: {"calm": {"clip": [packed(values)] * 3}} for row, values in hits.items()}
    per_query[VIDEOS] = {"clip": list(range(80))}
    cells = [share("b", ["calm"], "clip"), difference("b", "a", ["b", "c"], ["calm"], "clip")]
    cells.append({**cells[1], "statistic": "detectable"})
    folder = records.write_record(tmp_path / "record", {"T": [["x"] * 3, cells]}, per_query, {}, {})
    assert "| 100.0 | **+100.0 [+100.0, +100.0]** |" in records.page(folder)
    assert records.problems(folder) == []
