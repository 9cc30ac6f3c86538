"""Entropic optimal transport by a fixed number of Sinkhorn iterations.

The number of steps and their order, rows first, are part of the losses that use this: with 50 steps a large
problem is far from convergence, so a solver "to tolerance" would give other targets.

Shapes: any leading batch dimensions, N rows, M columns.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

import torch
from torch import Tensor

from mmpt.ops.backend import choose
from mmpt.ops.precision import full_precision

METHODS = ("auto", "log", "scaling", "numba", "triton")
SMALL = 64 * 64  # entries of one problem up to which many problems are laid out with the batch innermost
BATCH_CHUNK = 2048  # small problems that stay in the processor's cache together
CHECK_EVERY = 10  # iterations between looks at the scaling factors
SAFE_EXPONENT = (
    40.0  # entries of the kernel lost to underflow (below e^-87) stay below e^-47 of a unit of mass
)

Steps = Callable[
    [Tensor, Tensor, Tensor, Tensor, int], tuple[Tensor, Tensor]
]  # kernel, mu, nu, b, count -> a, b


def log_sinkhorn(
    scores: Tensor, log_mu: Tensor, log_nu: Tensor, n_iters: int = 50, method: str = "auto"
) -> Tensor:
    """Logarithm of the transport plan after `n_iters` row-then-column steps.

    Seeks max_P <P, scores> + H(P) over plans with row sums mu and column sums nu:
    P = exp(scores + u + v), u <- log mu - LSE_columns(scores + v), v <- log nu - LSE_rows(scores + u),
    starting from v = 0. After the last step the column sums are exact. Divide the scores by the entropic
    regulariser before the call.

    Args:
        scores: (..., N, M) higher = closer; -inf forbids a pair (not a whole row or column).
        log_mu: (N,) or (..., N) log row sums; -inf makes a row padding: the rest of the plan is that without
            it.
        log_nu: (M,) or (..., M) log column sums, likewise.
        n_iters: row-then-column steps, 0 returns the scores.
        method: "log" computes every step by log-sum-exp and is differentiable. "scaling" multiplies by
            exp(scores - row maximum) instead, looks every few steps whether that is still exact, and does
            those steps in the log domain where it is not; it gives the same plan, many times faster, without
            gradient. "numba" does the same with a compiled loop where many small problems lie on the CPU and
            numba is installed (its first call compiles for seconds), "triton" in float32 on a GPU. "auto"
            takes "log" where a gradient is asked for; else "triton" where it can (see `mmpt.ops.backend`),
            "scaling" on the CPU, and "log", which never waits for the device, elsewhere.

    Returns:
        (..., N, M) log plan, float32 for half-precision scores.

    Raises:
        ValueError: unknown method, negative `n_iters`, or marginals that do not fit.

    Source: Cuturi, "Sinkhorn Distances", NeurIPS 2013; absorption as in Schmitzer, "Stabilized Sparse Scaling
        Algorithms", 2019.
    """
    scores, log_mu, log_nu = (full_precision(x) for x in (scores, log_mu, log_nu))
    if n_iters < 0 or method not in METHODS:
        raise ValueError(
            f"log_sinkhorn: n_iters={n_iters} and method={method!r}; expected n_iters >= 0 and one of "
            f"{METHODS}."
        )
    if log_mu.shape[-1] != scores.shape[-2] or log_nu.shape[-1] != scores.shape[-1]:
        raise ValueError(
            f"log_sinkhorn: marginals {tuple(log_mu.shape)}, {tuple(log_nu.shape)} do not fit scores "
            f"{tuple(scores.shape)}."
        )
    log_mu = log_mu.to(scores.dtype).expand(scores.shape[:-1])
    log_nu = log_nu.to(scores.dtype).expand(*scores.shape[:-2], scores.shape[-1])
    wants_grad = torch.is_grad_enabled() and any(x.requires_grad for x in (scores, log_mu, log_nu))
    if n_iters == 0 or scores.numel() == 0:
        return scores
    method = _resolved(method, scores, wants_grad)
    if method == "log":
        u, v = _log_steps(
            scores,
            log_mu,
            log_nu,
            torch.zeros_like(log_nu).masked_fill_(log_nu.isneginf(), -torch.inf),
            n_iters,
        )
        return scores + u[..., :, None] + v[..., None, :]
    with torch.no_grad():
        if method == "triton":
            from mmpt.ops.sinkhorn._triton import log_plan

            with torch.cuda.device_of(scores):  # kernels start on the current device
                return log_plan(scores, log_mu, log_nu, n_iters)
        return _scaling(
            scores, log_mu, log_nu, n_iters, _compiled_or_eager() if method == "numba" else _batched_steps
        )


def _resolved(method: str, scores: Tensor, wants_grad: bool) -> str:
    if method == "auto":
        if wants_grad:
            return "log"
        method = choose("auto", scores, triton=None, torch=None, numba=None)
    elif method == "triton":
        choose(method, scores, triton=None)
    return ("scaling" if scores.device.type == "cpu" else "log") if method == "torch" else method


def _log_steps(
    scores: Tensor, log_mu: Tensor, log_nu: Tensor, v: Tensor, n_iters: int
) -> tuple[Tensor, Tensor]:
    for _ in range(n_iters):
        u = log_mu - torch.logsumexp(scores + v[..., None, :], dim=-1)
        v = log_nu - torch.logsumexp(scores + u[..., :, None], dim=-2)
    return u, v


def _scaling(scores: Tensor, log_mu: Tensor, log_nu: Tensor, n_iters: int, small_steps: Steps) -> Tensor:
    n, m = scores.shape[-2:]
    if scores.dim() == 2 and n * m > SMALL:
        return _stabilised(scores[..., None], log_mu[:, None], log_nu[:, None], n_iters, _matvec_steps)[
            ..., 0
        ]
    flat, mu, nu = scores.reshape(-1, n, m), log_mu.reshape(-1, n), log_nu.reshape(-1, m)
    plan = torch.empty_like(flat)
    if n * m > SMALL:
        for b in range(flat.shape[0]):
            plan[b] = _stabilised(flat[b, ..., None], mu[b, :, None], nu[b, :, None], n_iters, _matvec_steps)[
                ..., 0
            ]
    else:
        for b in range(0, flat.shape[0], BATCH_CHUNK):
            part = slice(b, b + BATCH_CHUNK)
            innermost = flat[part].permute(1, 2, 0).contiguous()  # (N, M, batch)
            result = _stabilised(innermost, mu[part].T, nu[part].T, n_iters, small_steps)
            plan[part] = result.permute(2, 0, 1)
    return plan.view(scores.shape)


def _stabilised(scores: Tensor, log_mu: Tensor, log_nu: Tensor, n_iters: int, steps: Steps) -> Tensor:
    """Scaling steps around absorbed potentials; scores (N, M, B), marginals (N, B) and (M, B), batch
    innermost throughout.

    With P = a exp(exponent) b, a round of at most CHECK_EVERY steps changes only a and b. A round that drove
    them so far that underflow of exp could show is thrown away and done in the log domain, from the
    potentials it started with.
    """
    mu, nu = log_mu.exp(), log_nu.exp()
    exponent, v = scores - scores.amax(dim=1, keepdim=True), torch.zeros_like(log_nu)
    kernel, a, b = exponent.exp(), torch.ones_like(mu), (nu > 0).to(nu.dtype)
    for first in range(0, n_iters, CHECK_EVERY):
        count = min(CHECK_EVERY, n_iters - first)
        b_before = b
        a, b = steps(kernel, mu, nu, b, count)
        # In float32 exp(exponent) is 0 below e^-87. While a and b are small, what was lost stays small when
        # multiplied by them; once they are large, it could have mattered.
        if not _is_exact(a, b):
            u, v = _log_rounds(scores, log_mu, log_nu, v + b_before.log(), count)
            exponent = scores + u[:, None] + v
            kernel, a, b = exponent.exp(), torch.ones_like(mu), torch.ones_like(nu)
    return exponent.add_(a.log()[:, None]).add_(b.log())


def _is_exact(a: Tensor, b: Tensor) -> bool:
    """False for NaN and infinity too."""
    return bool(a.amax().clamp(min=1).log() + b.amax().clamp(min=1).log() < SAFE_EXPONENT)


def _log_rounds(
    scores: Tensor, log_mu: Tensor, log_nu: Tensor, v: Tensor, n_iters: int
) -> tuple[Tensor, Tensor]:
    u, v = _log_steps(scores.permute(2, 0, 1), log_mu.T, log_nu.T, v.T, n_iters)
    return u.T, v.T


@functools.cache
def _compiled_or_eager() -> Steps:
    """Compiled steps where numba can be imported, else, said once, the eager ones."""
    try:
        from mmpt.ops.sinkhorn._numba import compiled_steps
    except ImportError:
        logging.getLogger(__name__).info("log_sinkhorn: numba is not installed; the eager steps are used.")
        return _batched_steps
    return compiled_steps


def _batched_steps(kernel: Tensor, mu: Tensor, nu: Tensor, b: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Many small problems: kernel (N, M, B)."""
    product = torch.empty_like(kernel)
    for _ in range(count):
        a = mu / torch.mul(kernel, b, out=product).sum(1)
        b = nu / torch.mul(kernel, a[:, None], out=product).sum(0)
    return a, b


def _matvec_steps(kernel: Tensor, mu: Tensor, nu: Tensor, b: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """One large problem: kernel (N, M, 1)."""
    kernel = kernel[..., 0]
    for _ in range(count):
        a = mu / (kernel @ b)
        b = nu / (kernel.T @ a)
    return a, b
