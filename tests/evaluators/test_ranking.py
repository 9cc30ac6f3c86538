"""Counting ranks against a slow sort, ties, bad input and memory."""

import numpy as np
import pytest
import torch

from mmpt.evaluators import ranking
from mmpt.evaluators.ranking import ScoreMatrix, count_ranks, rank_metrics
from tests.conftest import golden_cases, load_golden


def slow_rank(row, right, rule):
    better = sum(score > row[right] for score in row)
    tied = sum(score == row[right] for score in row) - 1
    return 1 + better + {"mean": 0.5, "optimistic": 0, "pessimistic": 1}[rule] * tied


@pytest.mark.parametrize("rule", ranking.TIE_RULES)
def test_ranks_equal_a_slow_loop_with_ties_and_shared_items(rule):
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 6, size=(30, 12)).astype(float)
    targets = rng.integers(0, 12, size=30)
    expected = [slow_rank(row, right, rule) for row, right in zip(scores, targets, strict=True)]
    assert count_ranks(ScoreMatrix(scores), targets).ranks(rule).tolist() == expected


def test_embeddings_rank_like_their_score_matrix_whatever_the_tile(monkeypatch):
    text, video = torch.randn(2, 37, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = count_ranks(ScoreMatrix(text @ video.T)).ranks()
    monkeypatch.setattr(ranking, "_TILE_ELEMENTS", 100)
    assert (count_ranks(ScoreMatrix(queries=text, gallery=video)).ranks() == whole).all()


def test_a_collapsed_model_ranks_in_the_middle_by_default():
    scores = np.zeros((101, 101))
    assert rank_metrics(count_ranks(ScoreMatrix(scores)).ranks()) == {"R1": 0, "R5": 0, "R10": 0, "MR": 51}
    assert rank_metrics(count_ranks(ScoreMatrix(scores)).ranks("optimistic"))["R1"] == 1
    assert (count_ranks(ScoreMatrix(scores)).tied == 100).all()


def test_identity_scores_are_perfect_and_reversed_ones_are_not():
    assert rank_metrics(count_ranks(ScoreMatrix(np.eye(20))).ranks())["R1"] == 1
    assert rank_metrics(count_ranks(ScoreMatrix(-np.eye(20))).ranks())["R10"] == 0


def test_a_pair_cannot_beat_itself_by_rounding():
    vectors = torch.randn(700, 96, generator=torch.Generator().manual_seed(1))
    same = vectors[:1].expand(700, -1)
    assert count_ranks(ScoreMatrix(queries=vectors, gallery=same)).better.sum() == 0


def test_nan_rows_are_counted_in_the_error():
    text = torch.ones(5, 3)
    text[[1, 4]] = torch.nan
    with pytest.raises(ValueError, match="2 of 5 rows hold NaN or infinity .first: row 1"):
        ScoreMatrix(queries=text, gallery=torch.ones(5, 3))
    with pytest.raises(ValueError, match="scores: 2 of 5 rows"):
        ScoreMatrix(text)


def test_half_precision_embeddings_do_not_overflow():
    text = torch.full((3, 4), 300.0, dtype=torch.float16)
    assert ScoreMatrix(queries=text, gallery=text)[0:1].isfinite().all()


def test_embeddings_too_large_to_multiply_are_refused():
    text = torch.full((3, 4), 1e30)
    with pytest.raises(ValueError, match="3 of 3 rows"):
        ScoreMatrix(queries=text, gallery=text)


@pytest.mark.parametrize("path", golden_cases("norton_metrics*.npz"))
def test_golden_norton_metrics_retrieval_tied_spreads_a_query_over_its_places_as_videoclip_did(path):
    arrays = load_golden(path)
    counts = count_ranks(ScoreMatrix(arrays["retrieval_tied_scores"]))
    places = [
        range(better + 1, better + tied + 2) for better, tied in zip(counts.better, counts.tied, strict=True)
    ]
    found = rank_metrics(np.array([place for of_query in places for place in of_query]))
    np.testing.assert_allclose(
        [found[name] for name in ("R1", "R5", "R10", "MR")], arrays["retrieval_tied_videoclip"], rtol=1e-6
    )


def test_queries_and_gallery_of_different_length_need_targets():
    with pytest.raises(ValueError, match="3 queries against 4 gallery items"):
        count_ranks(ScoreMatrix(np.ones((3, 4))))
    with pytest.raises(ValueError, match="one of 4 gallery items"):
        count_ranks(ScoreMatrix(np.ones((3, 4))), [0, 1, 4])


def test_embeddings_of_two_widths_are_refused():
    with pytest.raises(ValueError, match="3 wide, gallery embeddings 4"):
        ScoreMatrix(queries=torch.ones(2, 3), gallery=torch.ones(2, 4))


def test_no_tile_holds_more_than_a_bounded_number_of_scores(monkeypatch):
    monkeypatch.setattr(ranking, "_TILE_ELEMENTS", 1000)
    matrix = ScoreMatrix(queries=torch.ones(50, 2), gallery=torch.ones(300, 2))
    assert max(tile.numel() for _, tile in matrix.tiles()) <= 1000


def test_centred_cosine_ignores_a_shift_and_scale_of_either_side():
    text, video = torch.randn(2, 10, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plain = ScoreMatrix(queries=text, gallery=video).centred_cosine()
    moved = ScoreMatrix(queries=3 * text + 5, gallery=video - 2).centred_cosine()
    assert torch.allclose(plain[0:10], moved[0:10])


def test_scores_of_some_queries_with_some_items_are_those_of_the_matrix():
    queries, gallery = torch.randn(5, 4), torch.randn(6, 4)
    rows, columns = torch.tensor([4, 0]), torch.tensor([1, 5, 2])
    expected = (queries @ gallery.T)[rows][:, columns]
    for matrix in (ScoreMatrix(queries @ gallery.T), ScoreMatrix(queries=queries, gallery=gallery)):
        torch.testing.assert_close(matrix.between(rows, columns), expected)
