import math

import pytest
import torch

from mmpt.ops.contrastive import cosine_scores, dot_scores, info_nce, soft_cross_entropy, symmetric_info_nce


def slow_info_nce(scores, excluded):
    total = 0.0
    for i in range(len(scores)):
        kept = [j for j in range(scores.shape[1]) if j == i or not excluded[i, j]]
        total += math.log(sum(math.exp(scores[i, j] - scores[i, i]) for j in kept))
    return total / len(scores)


def test_info_nce_equals_a_loop_over_the_kept_negatives():
    torch.manual_seed(0)
    scores, excluded = torch.randn(5, 7, dtype=torch.float64), torch.rand(5, 7) < 0.4
    assert info_nce(scores, excluded).item() == pytest.approx(slow_info_nce(scores, excluded), rel=1e-12)


def test_the_positive_stays_when_everything_is_excluded():
    scores = torch.randn(4, 4, requires_grad=True)
    loss = info_nce(scores, torch.ones(4, 4, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0 and torch.isfinite(scores.grad).all()


def test_symmetric_form_takes_columns_of_the_transposed_mask():
    torch.manual_seed(1)
    scores, excluded = torch.randn(4, 4), torch.rand(4, 4) < 0.5
    rows, columns = symmetric_info_nce(scores, excluded)
    assert torch.equal(rows, info_nce(scores, excluded)) and torch.equal(
        columns, info_nce(scores.T, excluded.T)
    )


def test_equal_scores_cost_the_log_of_the_number_of_candidates():
    assert info_nce(torch.zeros(3, 8)).item() == pytest.approx(math.log(8))


def test_no_rows_cost_nothing():
    assert info_nce(torch.zeros(0, 4, requires_grad=True)).item() == 0


def test_soft_targets_on_the_diagonal_are_info_nce():
    scores = torch.randn(6, 6, dtype=torch.float64)
    torch.testing.assert_close(
        soft_cross_entropy(scores, torch.eye(6, dtype=torch.float64)), info_nce(scores)
    )


def test_soft_cross_entropy_weighs_each_column():
    scores, targets = torch.randn(3, 4, dtype=torch.float64), torch.rand(3, 4, dtype=torch.float64)
    expected = (
        -sum(targets[i, j] * (scores[i, j] - scores[i].logsumexp(0)) for i in range(3) for j in range(4)) / 3
    )
    torch.testing.assert_close(soft_cross_entropy(scores, targets), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_vectors_are_scored_in_float32(dtype):
    x = torch.full((2, 64), 200.0, dtype=dtype)  # the dot product overflows float16
    assert dot_scores(x, x).dtype == torch.float32 and torch.isfinite(dot_scores(x, x)).all()
    torch.testing.assert_close(cosine_scores(x, x), torch.ones(2, 2))


def test_zero_rows_have_cosine_zero_and_no_gradient():
    x = torch.zeros(2, 3, requires_grad=True)
    cosine_scores(x, torch.ones(2, 3)).sum().backward()
    assert torch.equal(x.grad, torch.zeros(2, 3))
