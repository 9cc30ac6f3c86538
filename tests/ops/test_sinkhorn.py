import math
import sys

import pytest
import torch

from mmpt.ops.sinkhorn import log_sinkhorn
from mmpt.ops.sinkhorn.functions import _compiled_or_eager


def uniform(n, dtype=torch.float64):
    return torch.full((n,), -math.log(n), dtype=dtype)


def slow_sinkhorn(scores, log_mu, log_nu, n_iters):
    n, m = scores.shape
    u, v = [0.0] * n, [0.0] * m
    for _ in range(n_iters):
        u = [
            log_mu[i].item() - math.log(sum(math.exp(scores[i, j] + v[j]) for j in range(m)))
            for i in range(n)
        ]
        v = [
            log_nu[j].item() - math.log(sum(math.exp(scores[i, j] + u[i]) for i in range(n)))
            for j in range(m)
        ]
    return torch.tensor(
        [[scores[i, j] + u[i] + v[j] for j in range(m)] for i in range(n)], dtype=scores.dtype
    )


@pytest.mark.parametrize("method", ["log", "scaling"])
@pytest.mark.parametrize("n_iters", [1, 3, 10, 11, 25])
def test_equals_a_loop_that_does_rows_then_columns(method, n_iters):
    torch.manual_seed(n_iters)
    scores = 3 * torch.randn(4, 5, dtype=torch.float64)
    log_mu, log_nu = (
        torch.randn(4, dtype=torch.float64).log_softmax(0),
        torch.randn(5, dtype=torch.float64).log_softmax(0),
    )
    plan = log_sinkhorn(scores, log_mu, log_nu, n_iters, method=method)
    torch.testing.assert_close(plan, slow_sinkhorn(scores, log_mu, log_nu, n_iters), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(7, 3, 4), (2, 3, 5, 4), (2, 80, 70), (1100, 2, 2)])
def test_scaling_gives_the_log_domain_plan_for_every_layout(shape):
    torch.manual_seed(0)
    scores, mu, nu = 10 * torch.rand(shape, dtype=torch.float64), uniform(shape[-2]), uniform(shape[-1])
    expected = log_sinkhorn(scores, mu, nu, 23, method="log")
    torch.testing.assert_close(
        log_sinkhorn(scores, mu, nu, 23, method="scaling"), expected, rtol=1e-11, atol=1e-11
    )


def test_marginals_may_differ_between_the_problems_of_a_batch():
    torch.manual_seed(0)
    scores = torch.randn(3, 4, 5, dtype=torch.float64)
    log_mu = torch.randn(3, 4, dtype=torch.float64).log_softmax(-1)
    plans = log_sinkhorn(scores, log_mu, uniform(5), 200)
    torch.testing.assert_close(plans.exp().sum(-1), log_mu.exp())
    torch.testing.assert_close(plans[1], log_sinkhorn(scores[1], log_mu[1], uniform(5), 200))


def test_column_sums_are_exact_after_any_number_of_steps():
    plan = log_sinkhorn(5 * torch.randn(6, 4, dtype=torch.float64), uniform(6), uniform(4), 1)
    torch.testing.assert_close(plan.exp().sum(0), uniform(4).exp())


def test_equal_scores_give_the_product_of_the_marginals():
    log_mu = torch.tensor([0.2, 0.3, 0.5]).log()
    plan = log_sinkhorn(torch.zeros(3, 2), log_mu, uniform(2, torch.float32), 1).exp()
    torch.testing.assert_close(plan, log_mu.exp()[:, None] / 2 * torch.ones(2))


def test_adding_row_and_column_potentials_to_the_scores_changes_nothing_at_convergence():
    torch.manual_seed(2)
    scores = torch.randn(5, 5, dtype=torch.float64)
    shifted = scores + torch.randn(5, 1, dtype=torch.float64) + torch.randn(5, dtype=torch.float64)
    torch.testing.assert_close(*(log_sinkhorn(s, uniform(5), uniform(5), 300) for s in (scores, shifted)))


def test_converged_plan_is_the_assignment_when_scores_are_far_apart():
    scores = torch.eye(4, dtype=torch.float64)[[2, 0, 3, 1]] * 60
    torch.testing.assert_close(log_sinkhorn(scores, uniform(4), uniform(4), 50).exp() * 4, scores / 60)


def test_no_steps_return_the_scores():
    scores = torch.randn(3, 3)
    assert torch.equal(log_sinkhorn(scores, uniform(3), uniform(3), 0), scores)


@pytest.mark.parametrize("shape", [(40, 9, 9), (90, 80)])
@pytest.mark.parametrize("spread", [30.0, 300.0])
@pytest.mark.parametrize("method", ["log", "scaling"])
def test_logits_of_hundreds_stay_close_to_float64(shape, spread, method):
    torch.manual_seed(0)
    scores = (2 * torch.rand(shape) - 1) * spread
    mu, nu = uniform(shape[-2], torch.float32), uniform(shape[-1], torch.float32)
    exact = log_sinkhorn(scores.double(), mu.double(), nu.double(), 50, method="log").exp() * shape[-1]
    plan = log_sinkhorn(scores, mu, nu, 50, method=method).exp() * shape[-1]
    torch.testing.assert_close(plan.double(), exact, rtol=1e-3, atol=1e-4)


def test_one_hopeless_problem_does_not_disturb_its_neighbours():
    torch.manual_seed(0)
    scores, mu = torch.rand(8, 5, 5), uniform(5, torch.float32)
    alone = log_sinkhorn(scores, mu, mu, 40)
    scores[3] = 600 * torch.randn(5, 5)
    plan = log_sinkhorn(scores, mu, mu, 40)
    keep = [0, 1, 2, 4, 5, 6, 7]
    torch.testing.assert_close(plan[keep], alone[keep], rtol=1e-5, atol=1e-5)
    assert torch.isfinite(plan).all()


@pytest.mark.parametrize("method", ["log", "scaling"])
def test_forbidden_pairs_get_no_mass(method):
    scores = torch.randn(4, 4, dtype=torch.float64).masked_fill(torch.eye(4, dtype=torch.bool), -torch.inf)
    plan = log_sinkhorn(scores, uniform(4), uniform(4), 300, method=method).exp()
    assert torch.equal(plan.diagonal(), torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(plan.sum(1), uniform(4).exp())


@pytest.mark.parametrize("method", ["log", "scaling", "numba"])
def test_rows_and_columns_without_mass_are_padding(method):
    scores, padding = 5 * torch.rand(3, 4, 5, dtype=torch.float64), torch.nn.functional.pad
    mu, nu = (padding(uniform(n), (0, extra), value=-torch.inf) for n, extra in ((4, 2), (5, 3)))
    padded = log_sinkhorn(padding(scores, (0, 3, 0, 2), value=7.0), mu, nu, 13, method=method)
    torch.testing.assert_close(padded[:, :4, :5], log_sinkhorn(scores, uniform(4), uniform(5), 13))
    assert padded[:, 4:].isneginf().all() and padded[..., 5:].isneginf().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_scores_are_solved_in_float32(dtype):
    scores = (torch.randn(3, 6, 6) * 100).to(dtype)
    plan = log_sinkhorn(scores, uniform(6), uniform(6))
    assert plan.dtype == torch.float32 and torch.isfinite(plan).all()
    torch.testing.assert_close(plan, log_sinkhorn(scores.float(), uniform(6), uniform(6)))


def test_gradient_flows_through_the_log_domain_when_it_is_asked_for():
    scores = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: log_sinkhorn(s, uniform(3), uniform(4), 4), (scores,))


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="do not fit scores"):
        log_sinkhorn(torch.zeros(3, 4), uniform(4), uniform(3))
    with pytest.raises(ValueError, match="method='newton'"):
        log_sinkhorn(torch.zeros(3, 3), uniform(3), uniform(3), method="newton")


def test_agrees_with_pot_at_convergence():
    ot = pytest.importorskip("ot")
    scores = torch.randn(6, 5, dtype=torch.float64)
    mu, nu = uniform(6).exp(), uniform(5).exp()
    plan = ot.sinkhorn(mu.numpy(), nu.numpy(), -scores.numpy(), 1.0, method="sinkhorn_log", stopThr=1e-13)
    torch.testing.assert_close(
        log_sinkhorn(scores, mu.log(), nu.log(), 500).exp(), torch.from_numpy(plan), rtol=1e-8, atol=1e-10
    )


def test_the_compiled_loop_gives_the_numbers_of_the_eager_one():
    pytest.importorskip("numba")
    torch.manual_seed(0)
    scores = 10 * torch.rand(300, 5, 4)
    scores[7] *= 50  # falls back to the log domain
    eager, compiled = (
        log_sinkhorn(scores, uniform(5), uniform(4), 23, method=method) for method in ("scaling", "numba")
    )
    torch.testing.assert_close(compiled, eager, rtol=1e-5, atol=1e-5)


def test_without_numba_the_eager_steps_are_used(monkeypatch):
    monkeypatch.setitem(sys.modules, "mmpt.ops.sinkhorn._numba", None)
    _compiled_or_eager.cache_clear()
    scores = torch.rand(3, 4, 4)
    assert torch.equal(
        log_sinkhorn(scores, uniform(4), uniform(4), method="numba"),
        log_sinkhorn(scores, uniform(4), uniform(4)),
    )
    _compiled_or_eager.cache_clear()
