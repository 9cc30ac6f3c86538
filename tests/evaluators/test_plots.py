"""Pictures are written, and inputs of different size refused."""

import numpy as np
import pytest

from mmpt.evaluators import plots

pytest.importorskip("matplotlib")


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG")


def test_the_alignment_picture_is_written(tmp_path):
    clips = [(8.0 * i, 8.0 * i + 8) for i in range(5)]
    truth = [(0.0, 8.0), None, (24.0, 40.0)]
    path = plots.plot_alignment(tmp_path / "new" / "a.png", np.eye(3, 5), truth, clips, ["chop", "hello", "fry " * 30], "one video")
    assert is_png(path)


def test_a_plan_of_another_size_is_refused(tmp_path):
    with pytest.raises(ValueError, match="plan is .2, 5. for 3 captions and 5 clips"):
        plots.plot_alignment(tmp_path / "a.png", np.ones((2, 5)), [None] * 3, [(0, 1)] * 5)


def test_ranks_and_scores_are_drawn(tmp_path):
    assert is_png(plots.plot_rank_histogram(tmp_path / "b.png", [1, 1.5, 7], 10))
    assert is_png(plots.plot_score_matrix(tmp_path / "c.png", np.eye(4)))
