import numpy as np
import ot
import pytest
import torch

from mmpt.evaluators import postprocess

SCORES = torch.rand(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def row_order(scores):
    return np.argsort(-np.asarray(scores), axis=1)


def softmax(x, axis):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dual softmax", lambda s: s * softmax(9 * s, 0)),
        ("inverted softmax", lambda s: softmax(9 * s, 0)),
        ("product of softmaxes", lambda s: softmax(9 * s, 0) * softmax(9 * s, 1)),
    ],
)
def test_each_softmax_ranks_as_its_formula_does(name, expected):
    assert (row_order(postprocess.BY_NAME[name](SCORES, 9.0)) == row_order(expected(SCORES.numpy()))).all()


def test_qb_norm_touches_only_rows_whose_best_item_a_bank_query_also_finds():
    bank = torch.tensor([[0.1, 0.9, 0.2, 0.1, 0.1]], dtype=torch.float64)
    found = postprocess.qb_norm(SCORES, 9.0, bank)
    active = SCORES.argmax(1) == 1
    assert active.any() and not active.all()
    assert torch.equal(found[~active], 9 * SCORES[~active])
    assert torch.allclose(found[active], 9 * (SCORES - bank)[active])


def test_sinkhorn_agrees_with_an_independent_solver():
    n, m = SCORES.shape
    plan = ot.sinkhorn(
        np.full(n, 1 / n), np.full(m, 1 / m), 1 - SCORES.numpy(), reg=1 / 9, numItermax=5000, stopThr=1e-13
    )
    found = 9 * SCORES + postprocess.sinkhorn_potentials(SCORES, 9.0)[50]
    assert np.allclose(softmax(found.numpy(), 1), plan * n, atol=1e-6)


def test_csls_subtracts_the_mean_of_the_nearest_queries():
    nearest = np.sort(SCORES.numpy(), axis=0)[-2:].mean(0)
    assert np.allclose(postprocess.csls(SCORES, 2), 2 * SCORES.numpy() - nearest)
