"""Assignment of rows to columns that never go back."""

import itertools

import pytest
import torch

from mmpt.ops.alignment import monotone_assignment


def slow(scores):
    rows, cols = scores.shape
    ways = itertools.combinations_with_replacement(range(cols), rows)
    return max(float(sum(scores[i, c] for i, c in enumerate(way))) for way in ways)


@pytest.mark.parametrize(("rows", "cols"), list(itertools.product((1, 2, 4, 5), repeat=2)))
def test_the_best_assignment_is_that_of_a_search_over_all(rows, cols):
    scores = torch.randn(
        rows, cols, dtype=torch.float64, generator=torch.Generator().manual_seed(rows + 9 * cols)
    )
    assert monotone_assignment(scores).item() == pytest.approx(slow(scores))


def test_padding_is_not_looked_at_and_has_no_gradient():
    scores = torch.randn(3, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([5, 2, 3]), torch.tensor([6, 1, 4])
    expected = [slow(scores[k, :r, :c]) for k, (r, c) in enumerate(zip(*lengths, strict=True))]
    for k, (r, c) in enumerate(zip(*lengths, strict=True)):
        scores[k, r:] = torch.inf
        scores[k, :, c:] = torch.nan
    scores.requires_grad_()
    found = monotone_assignment(scores, lengths)
    assert found.tolist() == pytest.approx(expected)
    found.sum().backward()
    for k, (r, c) in enumerate(zip(*lengths, strict=True)):
        assert scores.grad[k, :r, :c].sum(1).tolist() == [1.0] * int(r)
        assert scores.grad[k].sum() == r


def test_a_constant_adds_one_for_each_row():
    scores = torch.randn(4, 3, dtype=torch.float64)
    assert torch.allclose(monotone_assignment(scores + 2), monotone_assignment(scores) + 8)
