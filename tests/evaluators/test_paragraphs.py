"""Paragraph-video scores: golden matrices, a slow loop, independence of padding and tiling."""

import numpy as np
import pytest
import torch

from mmpt.evaluators import paragraphs
from mmpt.evaluators.paragraphs import PROTOCOLS, Groups, align_pair, paragraph_scores
from mmpt.evaluators.ranking import ScoreMatrix
from tests.conftest import golden_cases, load_golden


def matrices(scores, captions, clips, protocol):
    """Measure -> (paragraphs, videos)."""
    whole = {}
    n_videos = len(clips.lengths)
    for queries, found in paragraph_scores(ScoreMatrix(scores), captions, clips, protocol):
        for measure, tile in found.items():
            whole.setdefault(measure, torch.full((n_videos, n_videos), torch.nan, dtype=tile.dtype))[
                queries
            ] = tile
    return {measure: matrix.numpy() for measure, matrix in whole.items()}


@pytest.mark.parametrize("path", golden_cases("norton_metrics*.npz"))
@pytest.mark.parametrize("group", ["fullvideo", "bg"])
def test_golden_norton_metrics_fullvideo_and_bg_matrices(path, group):
    arrays = load_golden(path)
    if group == "fullvideo":
        index = arrays["fullvideo_clip_video_index"]
        captions = clips = Groups.from_lists(
            [np.flatnonzero(index == video) for video in range(index.max() + 1)]
        )
        found = matrices(arrays["fullvideo_scores"], captions, clips, PROTOCOLS["norton", "removed"])
    else:
        captions, clips = (
            Groups.from_lengths(arrays["bg_text_lengths"]),
            Groups.from_lengths(arrays["bg_video_lengths"]),
        )
        found = matrices(arrays["bg_scores"], captions, clips, PROTOCOLS["norton", "kept"])
    np.testing.assert_allclose(found[""], arrays[f"{group}_matrix_capavg"], rtol=1e-6)
    for measure, key in ("DTW", "dtw"), ("OTAM", "otam"):
        np.testing.assert_allclose(found[f"historic-{measure}"], arrays[f"{group}_matrix_{key}"], rtol=2e-4)
        np.testing.assert_allclose(found[measure], arrays[f"{group}_exact_{key}"], rtol=1e-6)


@pytest.mark.parametrize("path", golden_cases("tempclr_fullvideo*.npz"))
def test_golden_tempclr_fullvideo_matrices(path):
    arrays = load_golden(path)
    for i in range(int(arrays["n_cases"])):
        case = {
            name.removeprefix(f"c{i}_"): value for name, value in arrays.items() if name.startswith(f"c{i}_")
        }
        background = "removed" if np.array_equal(case["text_lengths"], case["video_lengths"]) else "kept"
        captions, clips = (
            Groups.from_lengths(case["text_lengths"]),
            Groups.from_lengths(case["video_lengths"]),
        )
        found = matrices(case["sim"], captions, clips, PROTOCOLS["tempclr", background])
        np.testing.assert_allclose(found[""], case["score_cap"], rtol=1e-4)
        np.testing.assert_allclose(found[""], case["upstream_score_cap"], rtol=1e-4)
        for measure, key in ("DTW", "dtw"), ("OTAM", "otam"):
            np.testing.assert_allclose(found[measure], case[f"score_{key}"], rtol=1e-6)
            np.testing.assert_allclose(found[f"historic-{measure}"], case[f"upstream_score_{key}"], rtol=1e-4)


def slow_dtw(cost):
    rows, cols = cost.shape
    total = np.full((rows + 1, cols + 1), np.inf)
    total[0, 0] = 0
    for i in range(rows):
        for j in range(cols):
            total[i + 1, j + 1] = cost[i, j] + min(total[i, j], total[i, j + 1], total[i + 1, j])
    return total[-1, -1]


def ragged(seed=0, background=False):
    """Random scores over five videos of unequal length."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(2, 6, 5)
    cols = rng.integers(4, 12, 5) if background else rows
    return rng.normal(size=(rows.sum(), cols.sum())), rows, cols


def blocks_of(scores, rows, cols):
    row_edges, col_edges = np.cumsum([0, *rows]), np.cumsum([0, *cols])
    for i in range(len(rows)):
        for j in range(len(cols)):
            yield i, j, scores[row_edges[i] : row_edges[i + 1], col_edges[j] : col_edges[j + 1]]


def test_all_measures_equal_a_slow_loop_over_pairs():
    scores, rows, cols = ragged()
    found = matrices(
        scores, Groups.from_lengths(rows), Groups.from_lengths(cols), PROTOCOLS["tempclr", "removed"]
    )
    scaled = (scores - scores.min()) / (scores.max() - scores.min())
    for i, j, block in blocks_of(scores, rows, cols):
        assert found[""][i, j] == pytest.approx(block.max(1).mean())
        assert found["DTW"][i, j] == pytest.approx(-slow_dtw((1 - block) * rows.max() ** 2 / block.size))
    for i, j, block in blocks_of(scaled, rows, cols):
        u, v, kernel = np.ones(len(block)), np.ones(block.shape[1]), np.exp(block / 0.1)
        for _ in range(50):
            u = 1 / len(block) / (kernel @ v)
            v = 1 / block.shape[1] / (u @ kernel)
        assert found["OT"][i, j] == pytest.approx((u[:, None] * kernel * v * block).sum())


def test_kept_windows_are_the_best_ones_in_temporal_order():
    scores, rows, cols = ragged(background=True)
    found = matrices(
        scores, Groups.from_lengths(rows), Groups.from_lengths(cols), PROTOCOLS["norton", "kept"]
    )
    for i, j, block in blocks_of(scores, rows, cols):
        keep = min(int(1.3 * len(block)), block.shape[1])
        kept = block[:, np.sort(np.argsort(-block.max(0), kind="stable")[:keep])]
        cost = (3 - kept) * rows.max() * cols.max() / kept.size
        assert found["DTW"][i, j] == pytest.approx(-slow_dtw(cost))


@pytest.mark.parametrize("bins", [1, 2, 8])
@pytest.mark.parametrize("background", ["removed", "kept"])
def test_scores_do_not_depend_on_tiling(background, bins, monkeypatch):
    scores, rows, cols = ragged(background=background == "kept")
    args = scores, Groups.from_lengths(rows), Groups.from_lengths(cols), PROTOCOLS["norton", background]
    whole = matrices(*args)
    monkeypatch.setattr(paragraphs, "_TILE_ELEMENTS", 1)
    monkeypatch.setattr(paragraphs, "_BINS", bins)
    for measure, matrix in matrices(*args).items():
        np.testing.assert_allclose(matrix, whole[measure], rtol=1e-6, err_msg=measure)


def test_a_longer_video_elsewhere_changes_a_pair_only_by_the_common_scale():
    scores, rows, _ = ragged()
    short = Groups.from_lists([[0, 1], [2, 3, 4]])
    longer = Groups.from_lists([[0, 1], [2, 3, 4], list(range(5, 5 + 9))])
    two = matrices(scores, short, short, PROTOCOLS["norton", "removed"])
    three = matrices(scores, longer, longer, PROTOCOLS["norton", "removed"])
    np.testing.assert_allclose(three["DTW"][:2, :2], two["DTW"] * (9 / 3) ** 2)
    np.testing.assert_allclose(three["OTAM"][:2, :2], two["OTAM"] * (9 / 3) ** 2)


def test_transport_of_one_clip_per_side_is_its_score():
    scores = np.array([[0.2, 0.9], [0.4, 0.1]])
    one = Groups.from_lists([[0], [1]])
    found = matrices(scores, one, one, PROTOCOLS["norton", "removed"])
    np.testing.assert_allclose(found["OT"], (scores - 0.1) / 0.8)


@pytest.mark.parametrize("protocol", PROTOCOLS.values())
def test_the_alignment_of_a_pair_is_the_one_behind_its_scores(protocol):
    scores = torch.randn(9, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    captions, clips = Groups.from_lengths([2, 4, 3]), Groups.from_lengths([3, 3, 6])
    found = matrices(scores, captions, clips, protocol)
    pair = align_pair(ScoreMatrix(scores), captions, clips, 1, 2, protocol)
    area = 4 * 6 / pair.cost.numel()
    assert -area * pair.cost[pair.dtw].sum() == pytest.approx(found["DTW"][1, 2])
    scaled = (protocol.dtw_offset - pair.cost - scores.min()) / (scores.max() - scores.min())
    assert (pair.plan * scaled).sum() == pytest.approx(found["OT"][1, 2])
    rows, cols = pair.otam.nonzero().T
    assert (rows.diff() >= 0).all() and (cols.diff() >= 0).all()
