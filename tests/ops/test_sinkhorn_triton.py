import math

import pytest
import torch

from mmpt.ops.sinkhorn import log_sinkhorn
from tests.ops.kernels import DEVICE, KERNELS

pytestmark = KERNELS


def masses(n):
    """Log marginal of n - 1 equal clips and a bucket of half the mass."""
    return torch.tensor([-math.log(2 * (n - 1))] * (n - 1) + [-math.log(2)])


def plans(scores, log_mu, log_nu, n_iters, method="triton"):
    """The plan of the kernels, and that of float64 steps in the log domain."""
    given = (x.to(DEVICE) for x in (scores, log_mu, log_nu))
    plan = log_sinkhorn(*given, n_iters, method=method).cpu()
    exact = log_sinkhorn(scores.double(), log_mu.double(), log_nu.double(), n_iters, method="log")
    return plan.double().exp(), exact.exp()


@pytest.mark.parametrize(
    ("shape", "n_iters"),
    [((40, 9, 9), 50), ((3, 2, 5, 4), 11), ((2, 17, 20), 50), ((2, 70, 68), 3)],
    ids=["registers", "lead", "block", "streamed"],
)
def test_kernels_give_the_plan_of_float64_in_every_layout(shape, n_iters):
    torch.manual_seed(0)
    plan, exact = plans(10 * torch.rand(shape), masses(shape[-2]), masses(shape[-1]), n_iters)
    assert (plan - exact).abs().max() < 2e-6 * exact.max()


@pytest.mark.parametrize(
    "shape", [(3, 5, 4), (2, 15, 12), (1, 66, 64)], ids=["registers", "block", "streamed"]
)
def test_rows_and_columns_without_mass_are_padding_for_the_kernels(shape):
    torch.manual_seed(1)
    scores, log_mu, log_nu = 5 * torch.rand(shape), masses(shape[-2]), masses(shape[-1])
    more = [torch.nn.functional.pad(x, (1, 1), value=-math.inf) for x in (log_mu, log_nu)]
    padded, _ = plans(torch.nn.functional.pad(scores, (1, 1, 1, 1), value=9.0), *more, 3)
    _, exact = plans(scores, log_mu, log_nu, 3)
    assert (padded[:, 1:-1, 1:-1] - exact).abs().max() < 2e-6 * exact.max()
    assert padded.sum() == pytest.approx(exact.sum())


def test_a_problem_too_steep_for_scaling_is_done_in_logs_and_its_neighbours_are_not_disturbed():
    torch.manual_seed(2)
    scores = 10 * torch.rand(6, 4, 4)
    alone = log_sinkhorn(scores.to(DEVICE), masses(4).to(DEVICE), masses(4).to(DEVICE), 12, method="triton")
    scores[3] = 600 * torch.rand(4, 4)
    plan, exact = plans(scores, masses(4), masses(4), 12)
    keep = [0, 1, 2, 4, 5]
    assert torch.equal(plan[keep], alone.cpu()[keep].double().exp())
    assert (plan - exact).abs().max() < 5e-5  # float32 scores of 600 are rounded to 3e-5


def test_forbidden_pairs_get_no_mass_from_the_kernels():
    scores = torch.rand(2, 4, 4).masked_fill(torch.eye(4, dtype=torch.bool), -math.inf)
    plan, exact = plans(scores, masses(4), masses(4), 25)
    assert torch.equal(plan.diagonal(dim1=1, dim2=2), torch.zeros(2, 4, dtype=torch.float64))
    assert (plan - exact).abs().max() < 1e-6


def test_marginals_may_differ_between_problems_and_half_precision_is_solved_in_float32():
    torch.manual_seed(3)
    scores, log_mu = torch.rand(3, 4, 5).half(), torch.randn(3, 4).log_softmax(-1)
    plan, exact = plans(scores, log_mu, masses(5), 20)
    assert (plan - exact).abs().max() < 2e-6


def test_float64_is_refused_by_the_kernels():
    with pytest.raises(ValueError, match="input is float64"):
        log_sinkhorn(torch.zeros(3, 3, dtype=torch.float64), masses(3), masses(3), method="triton")
