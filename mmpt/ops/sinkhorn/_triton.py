"""Sinkhorn steps as Triton kernels (optional: needs triton, and a GPU or its interpreter).

They give the numbers of the eager steps, to rounding.

Legend: P problems of N rows and M columns. Nothing here waits for the device.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

THREAD_NUMBERS = 120  # entries and marginals of a problem that one thread holds: 9 x 9; more compile for long
BLOCK_ENTRIES = 64 * 64  # entries of a problem that one program can hold
CHECK_EVERY = tl.constexpr(10)  # steps between looks at the scaling factors
SAFE_EXPONENT = tl.constexpr(
    40.0
)  # entries lost to underflow (below e^-87) stay below e^-47 of a unit of mass


def log_plan(scores: Tensor, log_mu: Tensor, log_nu: Tensor, n_iters: int) -> Tensor:
    """As `mmpt.ops.sinkhorn.log_sinkhorn`, without gradient.

    Args:
        scores: (..., N, M) float32.
        log_mu: (..., N) float32, expanded to the problems.
        log_nu: (..., M), likewise.
        n_iters: at least 1.
    """
    n, m = scores.shape[-2:]
    flat, mu, nu = scores.reshape(-1, n, m).contiguous(), log_mu.reshape(-1, n), log_nu.reshape(-1, m)
    rows, columns = (max(16, triton.next_power_of_2(size)) for size in (n, m))
    if rows * columns > BLOCK_ENTRIES:
        return _streamed(flat, mu, nu, n_iters).view(scores.shape)
    plan = torch.empty_like(flat)
    problems = flat, mu, nu, plan, len(flat), *mu.stride(), *nu.stride(), n_iters
    block = {"ROWS": rows, "COLUMNS": columns, "num_warps": min(16, max(1, rows * columns // 512))}
    if n * m + 2 * (n + m) > THREAD_NUMBERS:
        lost, group = plan, 1
    else:
        lost, group = torch.empty(len(flat), dtype=torch.int32, device=flat.device), 32
        _scaling_steps[(triton.cdiv(len(flat), 32),)](*problems, lost, N=n, M=m, LANES=32, num_warps=1)
    _log_steps[(triton.cdiv(len(flat), group),)](
        *problems, n, m, lost, GROUP=group, ONLY_LOST=lost is not plan, **block
    )
    return plan.view(scores.shape)


@triton.jit
def _scaling_steps(
    scores, log_mu, log_nu, plan, problems, mu_stride, mu_step, nu_stride, nu_step, n_iters, lost,
    N: tl.constexpr, M: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """A problem a thread: every entry of exp(scores - row maximum) is a register, so that no step leaves it.

    Tuples of entries, not matrices, so that no compiler spreads a problem over several threads. `lost` says
    where the factors became so large that underflow of exp could show.
    """
    problem = (tl.program_id(0) * LANES + tl.arange(0, LANES)).to(tl.int64)
    here = problem < problems
    at, out = scores + problem * (N * M), plan + problem * (N * M)
    kernel, mu, top, a, nu, b = (), (), (), (), (), ()
    for i in tl.static_range(N):
        most = tl.load(at + i * M, mask=here, other=0.0)
        for j in tl.static_range(1, M):
            most = tl.maximum(most, tl.load(at + i * M + j, mask=here, other=0.0))
        for j in tl.static_range(M):
            kernel = kernel + (tl.exp(tl.load(at + i * M + j, mask=here, other=0.0) - most),)
        mass = tl.exp(tl.load(log_mu + problem * mu_stride + i * mu_step, mask=here, other=0.0))
        mu, a, top = mu + (mass,), a + (mass,), top + (most,)
    for j in tl.static_range(M):
        mass = tl.exp(tl.load(log_nu + problem * nu_stride + j * nu_step, mask=here, other=0.0))
        nu, b = nu + (mass,), b + (tl.where(mass > 0, 1.0, 0.0),)
    sound = here
    for first in range(0, n_iters, CHECK_EVERY):
        for _ in range(tl.minimum(n_iters - first, CHECK_EVERY)):
            a_next, b_next = (), ()
            for i in tl.static_range(N):
                total = kernel[i * M] * b[0]
                for j in tl.static_range(1, M):
                    total += kernel[i * M + j] * b[j]
                a_next = a_next + (mu[i] / total,)
            for j in tl.static_range(M):
                total = kernel[j] * a_next[0]
                for i in tl.static_range(1, N):
                    total += kernel[i * M + j] * a_next[i]
                b_next = b_next + (nu[j] / total,)
            a, b = a_next, b_next
        # the largest factors of either side; a comparison with NaN is false, so that it counts as lost
        a_most, b_most = tl.full((LANES,), 1.0, tl.float32), tl.full((LANES,), 1.0, tl.float32)
        for i in tl.static_range(N):
            a_most, sound = tl.maximum(a_most, a[i]), sound & (a[i] == a[i])
        for j in tl.static_range(M):
            b_most, sound = tl.maximum(b_most, b[j]), sound & (b[j] == b[j])
        sound = sound & (tl.log(a_most) + tl.log(b_most) < SAFE_EXPONENT)
    tl.store(lost + problem, tl.where(sound, 0, 1), mask=here)
    for i in tl.static_range(N):
        row = tl.log(a[i]) - top[i]
        for j in tl.static_range(M):
            value = tl.load(at + i * M + j, mask=here, other=0.0) + row + tl.log(b[j])
            tl.store(out + i * M + j, value, mask=here)


@triton.jit
def _log_steps(
    scores, log_mu, log_nu, plan, problems, mu_stride, mu_step, nu_stride, nu_step, n_iters, n, m, lost,
    GROUP: tl.constexpr, ONLY_LOST: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Every step by log-sum-exp, GROUP problems one after the other in a program; with ONLY_LOST those that
    `lost` marks."""
    row, column = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    inside = (row < n)[:, None] & (column < m)[None, :]
    first = tl.program_id(0).to(tl.int64) * GROUP
    for place in range(GROUP):
        problem = first + place
        wanted = problem < problems
        if ONLY_LOST:
            wanted = tl.load(lost + problem, mask=wanted, other=0) != 0
        if wanted:
            at = problem * n * m + row[:, None] * m + column[None, :]
            score = tl.load(scores + at, mask=inside, other=-float("inf"))
            mu = tl.load(log_mu + problem * mu_stride + row * mu_step, mask=row < n, other=-float("inf"))
            nu = tl.load(
                log_nu + problem * nu_stride + column * nu_step, mask=column < m, other=-float("inf")
            )
            u, v = tl.zeros_like(mu), tl.where(nu == -float("inf"), nu, 0.0)
            for _ in range(n_iters):
                u = mu - _log_sum_exp(score + v[None, :], 1)
                v = nu - _log_sum_exp(score + u[:, None], 0)
            tl.store(plan + at, score + u[:, None] + v[None, :], mask=inside)


@triton.jit
def _log_sum_exp(x, axis: tl.constexpr):
    """Padded rows and columns give 0 instead of -inf: what is subtracted from their log mass of -inf is then
    finite."""
    most = tl.max(x, axis)
    most = tl.where(most == -float("inf"), 0.0, most)
    total = tl.sum(tl.exp(x - tl.expand_dims(most, axis)), axis)
    return most + tl.log(tl.where(total > 0, total, 1.0))


def _streamed(scores: Tensor, log_mu: Tensor, log_nu: Tensor, n_iters: int) -> Tensor:
    """Large problems (P, N, M): one pass over the scores a half step.

    Reading the scores takes longer than their exp, so every step is done in logs.
    """
    problems, n, m = scores.shape
    log_mu, log_nu = log_mu.contiguous(), log_nu.contiguous()
    u, v = torch.empty_like(log_mu), torch.zeros_like(log_nu).masked_fill_(log_nu.isneginf(), -torch.inf)
    across, down = (triton.cdiv(n, 4), problems), (triton.cdiv(m, 16), problems)
    for _ in range(n_iters):
        _half_step[across](scores, log_mu, v, u, n, m, m, 1, OWN=4, OTHER=1024, num_warps=4)
        _half_step[down](scores, log_nu, u, v, m, n, 1, m, OWN=16, OTHER=256, num_warps=4)
    return (scores + u[:, :, None]).add_(v[:, None])


@triton.jit
def _half_step(
    scores, log_mass, other, out, n_own, n_other, own_step, other_step, OWN: tl.constexpr, OTHER: tl.constexpr
):
    """out = log_mass - LSE over the other side of (scores + other), for OWN rows (columns) of a problem."""
    problem = tl.program_id(1).to(tl.int64)
    own = tl.program_id(0) * OWN + tl.arange(0, OWN)
    scores += problem * n_own * n_other + own[:, None].to(tl.int64) * own_step
    most, total = tl.full((OWN,), -float("inf"), tl.float32), tl.zeros((OWN,), tl.float32)
    for start in range(0, n_other, OTHER):
        along = start + tl.arange(0, OTHER)
        inside = (own < n_own)[:, None] & (along < n_other)[None, :]
        potential = tl.load(other + problem * n_other + along, mask=along < n_other, other=-float("inf"))
        x = (
            tl.load(scores + along[None, :].to(tl.int64) * other_step, mask=inside, other=-float("inf"))
            + potential[None, :]
        )
        higher = tl.maximum(most, tl.max(x, 1))
        finite = tl.where(higher == -float("inf"), 0.0, higher)
        total = total * tl.exp(most - finite) + tl.sum(tl.exp(x - finite[:, None]), 1)
        most = higher
    mass = tl.load(log_mass + problem * n_own + own, mask=own < n_own, other=0.0)
    result = mass - tl.where(total > 0, most + tl.log(total), 0.0)
    tl.store(out + problem * n_own + own, result, mask=own < n_own)
