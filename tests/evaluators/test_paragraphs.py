"""Paragraphs against videos: golden matrices, a slow loop, independence of padding and tiling."""

import itertools

import numpy as np
import pytest
import torch

from mmpt.evaluators import paragraphs
from mmpt.evaluators.paragraphs import (
    Groups,
    Spread,
    align_pair,
    caption_average,
    keep_best,
    paragraph_scores,
    shift_free_measures,
)
from mmpt.evaluators.ranking import ScoreMatrix
from mmpt.evaluators.tasks.fullvideo import KEEP
from mmpt.historic.full_video import PROTOCOLS, published_measures
from tests.conftest import golden_cases, load_golden
from tests.evaluators.ragged import ragged


def matrices(scores, captions, clips, measure):
    """Measure -> (paragraphs, videos)."""
    whole = {}
    n_videos = len(clips.lengths)
    for queries, found in paragraph_scores(ScoreMatrix(scores), captions, clips, measure):
        for name, tile in found.items():
            whole.setdefault(name, torch.full((n_videos, n_videos), torch.nan, dtype=tile.dtype))[queries] = (
                tile
            )
    return {name: matrix.numpy() for name, matrix in whole.items()}


def published(scores, captions, clips, protocol, background):
    """As the releases measure, on the clips that they keep."""
    largest = captions.index.shape[1], clips.index.shape[1]

    def measure(block):
        found = {"": caption_average(block)}
        block = keep_best(block, KEEP) if background == "kept" else block
        lengths = block.rows, block.cols
        return found | published_measures(block.scores, lengths, largest, PROTOCOLS[protocol, background])

    return matrices(scores, captions, clips, measure)


def shift_free(scores, captions, clips, keep=None):
    spread = Spread.of(ScoreMatrix(scores))
    return matrices(scores, captions, clips, lambda block: shift_free_measures(block, spread, keep))


@pytest.mark.parametrize("path", golden_cases("norton_metrics*.npz"))
@pytest.mark.parametrize("group", ["fullvideo", "bg"])
def test_golden_norton_metrics_fullvideo_and_bg_matrices(path, group):
    arrays = load_golden(path)
    if group == "fullvideo":
        index = arrays["fullvideo_clip_video_index"]
        captions = clips = Groups.from_lists(
            [np.flatnonzero(index == video) for video in range(index.max() + 1)]
        )
        found = published(arrays["fullvideo_scores"], captions, clips, "norton", "removed")
    else:
        captions, clips = (
            Groups.from_lengths(arrays["bg_text_lengths"]),
            Groups.from_lengths(arrays["bg_video_lengths"]),
        )
        found = published(arrays["bg_scores"], captions, clips, "norton", "kept")
    np.testing.assert_allclose(found[""], arrays[f"{group}_matrix_capavg"], rtol=1e-6)
    for measure, key in ("DTW", "dtw"), ("OTAM", "otam"):
        np.testing.assert_allclose(found[f"historic-{measure}"], arrays[f"{group}_matrix_{key}"], rtol=1e-5)
        np.testing.assert_allclose(found[f"exact-{measure}"], arrays[f"{group}_exact_{key}"], rtol=1e-6)


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
        found = published(case["sim"], captions, clips, "tempclr", background)
        np.testing.assert_allclose(found[""], case["score_cap"], rtol=1e-5)
        np.testing.assert_allclose(found[""], case["upstream_score_cap"], rtol=1e-5)
        for measure, key in ("DTW", "dtw"), ("OTAM", "otam"):
            np.testing.assert_allclose(found[f"exact-{measure}"], case[f"score_{key}"], rtol=1e-6)
            np.testing.assert_allclose(found[f"historic-{measure}"], case[f"upstream_score_{key}"], rtol=1e-5)


def slow_dtw(cost):
    rows, cols = cost.shape
    total = np.full((rows + 1, cols + 1), np.inf)
    total[0, 0] = 0
    for i in range(rows):
        for j in range(cols):
            total[i + 1, j + 1] = cost[i, j] + min(total[i, j], total[i, j + 1], total[i + 1, j])
    return total[-1, -1]


def blocks_of(scores, rows, cols):
    row_edges, col_edges = np.cumsum([0, *rows]), np.cumsum([0, *cols])
    for i in range(len(rows)):
        for j in range(len(cols)):
            yield i, j, scores[row_edges[i] : row_edges[i + 1], col_edges[j] : col_edges[j + 1]]


def slow_otam(cost):
    """Every column takes one row; rows never go back; the first and last column may take several."""
    rows, cols = cost.shape
    total = np.full((rows + 1, cols + 2), np.inf)
    total[:, 0] = 0
    padded = np.pad(cost, ((0, 0), (1, 1)))
    best = np.zeros((rows, cols + 2))
    best[0] = padded[0].cumsum()
    for i in range(1, rows):
        for j in range(1, cols + 2):
            ways = [best[i - 1, j - 1], best[i, j - 1]]
            ways += [best[i - 1, j]] if j in (1, cols + 1) else []
            best[i, j] = padded[i, j] + min(ways)
    return best[-1, -1]


def test_all_measures_equal_a_slow_loop_over_pairs():
    scores, rows, cols = ragged(background=True)
    found = shift_free(scores, Groups.from_lengths(rows), Groups.from_lengths(cols))
    for i, j, block in blocks_of(scores, rows, cols):
        n, m = block.shape
        cost = scores.max() - block
        assert found[""][i, j] == pytest.approx(block.max(1).mean())
        assert found["DTW"][i, j] == pytest.approx(-slow_dtw(cost) / max(n, m))
        assert found["OTAM"][i, j] == pytest.approx(-slow_otam(cost) / m - slow_otam(cost.T) / n)
        ways = itertools.combinations_with_replacement(range(m), n)
        assert found["monotone"][i, j] == pytest.approx(max(block[range(n), way].mean() for way in ways))
    scaled = (scores - scores.min()) / (scores.max() - scores.min())
    for i, j, block in blocks_of(scaled, rows, cols):
        u, v, kernel = np.ones(len(block)), np.ones(block.shape[1]), np.exp(block / 0.1)
        for _ in range(50):
            u = 1 / len(block) / (kernel @ v)
            v = 1 / block.shape[1] / (u @ kernel)
        assert found["OT"][i, j] == pytest.approx((u[:, None] * kernel * v * block).sum())


def test_two_captions_and_two_clips_have_a_closed_form():
    scores = np.array([[0.9, 0.2], [0.4, 0.7]])
    two = Groups.from_lists([[0, 1]])
    found = {name: float(matrix[0, 0]) for name, matrix in shift_free(scores, two, two).items()}
    assert found["DTW"] == pytest.approx(-((0.9 - 0.9) + (0.9 - 0.7)) / 2)
    assert found["monotone"] == pytest.approx((0.9 + 0.7) / 2) and found[""] == pytest.approx(0.8)
    assert found["OTAM"] == pytest.approx(-0.2 / 2 - 0.2 / 2)


def test_transport_keeps_the_best_windows_in_temporal_order():
    scores, rows, cols = ragged(background=True)
    captions, clips = Groups.from_lengths(rows), Groups.from_lengths(cols)
    found = matrices(scores, captions, clips, lambda block: {"": caption_average(keep_best(block, KEEP))})
    dtw = published(scores, captions, clips, "norton", "kept")["exact-DTW"]
    for i, j, block in blocks_of(scores, rows, cols):
        keep = min(int(KEEP * len(block)), block.shape[1])
        kept = block[:, np.sort(np.argsort(-block.max(0), kind="stable")[:keep])]
        assert found[""][i, j] == pytest.approx(kept.max(1).mean())
        assert dtw[i, j] == pytest.approx(-slow_dtw((3 - kept) * rows.max() * cols.max() / kept.size))


@pytest.mark.parametrize("bins", [1, 2, 8])
@pytest.mark.parametrize("background", ["removed", "kept"])
def test_scores_do_not_depend_on_tiling(background, bins, monkeypatch):
    scores, rows, cols = ragged(background=background == "kept")
    args = scores, Groups.from_lengths(rows), Groups.from_lengths(cols)
    whole = shift_free(*args) | published(*args, "norton", background)
    monkeypatch.setattr(paragraphs, "_TILE_ELEMENTS", 1)
    monkeypatch.setattr(paragraphs, "_BINS", bins)
    for measure, matrix in (shift_free(*args) | published(*args, "norton", background)).items():
        np.testing.assert_allclose(matrix, whole[measure], rtol=1e-6, err_msg=measure)


def test_a_longer_video_elsewhere_changes_a_published_pair_only_by_the_common_scale():
    scores, _, _ = ragged()
    short = Groups.from_lists([[0, 1], [2, 3, 4]])
    longer = Groups.from_lists([[0, 1], [2, 3, 4], list(range(5, 5 + 9))])
    two, three = (published(scores, groups, groups, "norton", "removed") for groups in (short, longer))
    np.testing.assert_allclose(three["exact-DTW"][:2, :2], two["exact-DTW"] * (9 / 3) ** 2)
    np.testing.assert_allclose(three["exact-OTAM"][:2, :2], two["exact-OTAM"] * (9 / 3) ** 2)


def test_transport_of_one_clip_per_side_is_its_score():
    scores = np.array([[0.2, 0.9], [0.4, 0.1]])
    one = Groups.from_lists([[0], [1]])
    np.testing.assert_allclose(shift_free(scores, one, one)["OT"], (scores - 0.1) / 0.8)


@pytest.mark.parametrize("keep", [None, KEEP])
def test_the_alignment_of_a_pair_is_the_one_behind_its_scores(keep):
    scores = torch.randn(9, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    captions, clips = Groups.from_lengths([2, 4, 3]), Groups.from_lengths([3, 3, 6])
    found = shift_free(scores, captions, clips, keep)
    pair = align_pair(ScoreMatrix(scores), captions, clips, 1, 2, keep)
    if keep is None:
        assert -pair.cost[pair.dtw].sum() / 6 == pytest.approx(found["DTW"][1, 2])
    scaled = (scores.max() - pair.cost - scores.min()) / (scores.max() - scores.min())
    assert (pair.plan * scaled).sum() == pytest.approx(found["OT"][1, 2])
    rows, cols = pair.otam.nonzero().T
    assert (rows.diff() >= 0).all() and (cols.diff() >= 0).all()
