"""Ordered alignment of two sequences: DTW and OTAM (soft, hard, paths), Drop-DTW, and the step assignment of
CrossTask.

Legend: N matrices (all leading dimensions together), R rows, C columns, T frames, K steps. `cost` is (..., R,
C), low = close; it may be negative. All functions are batched over the leading dimensions and run on the
device of `cost`; half precision is computed in float32. `lengths = (row_lengths, col_lengths)` restricts
matrix n to its upper left block: int64 tensors that broadcast to the leading dimensions (either may be None =
all), each >= 1. What lies outside a block (also inf or NaN) reaches neither values nor gradients.
Gradients are analytic: d value / d cost is the expected alignment path, computed along with the value (so no
second derivatives).

Sources: soft-DTW arXiv 1703.01541, its divergence arXiv 2010.08354, OTAM arXiv 1906.11415, TempCLR arXiv
    2212.13738, Drop-DTW arXiv
2108.11996, step assignment arXiv 1903.08225.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from mmpt.ops.alignment import _torch as _wavefront
from mmpt.ops.backend import choose
from mmpt.ops.precision import autocast_off, full_precision

TRITON_ROWS = 256  # eight a thread, whose registers hold no more

Lengths = tuple[Tensor | None, Tensor | None]  # of rows and of columns


def cosine_cost(rows: Tensor, cols: Tensor, eps: float = 0.01) -> Tensor:
    """Unit distance 1 - <x, y> / (|x| |y| + eps) of all pairs, in float32 or better even under autocast.

    Args:
        rows: (..., R, D).
        cols: (..., C, D).
        eps: added to the product of the norms: two equal unit vectors are 1 - 1 / (1 + eps) apart, a zero
            vector is 1 from everything.

    Returns:
        (..., R, C), strictly between 0 and 2.
    """
    with autocast_off(rows):
        rows, cols = full_precision(rows), full_precision(cols)
        norms = rows.norm(dim=-1).unsqueeze(-1) * cols.norm(dim=-1).unsqueeze(-2)
        return 1.0 - rows @ cols.mT / (norms + eps)


def soft_dtw(
    cost: Tensor,
    smoothing: float = 0.1,
    lengths: Lengths | None = None,
    band: int | None = None,
    backend: str = "auto",
) -> Tensor:
    """Soft-DTW: -smoothing * log of the sum, over monotone paths from corner to corner, of exp(-path cost /
    smoothing).

    A[i, j] = cost[i, j] + softmin(A[i-1, j-1], A[i, j-1], A[i-1, j]). At most the hard value, negative where
    many paths are cheap.

    Args:
        cost: (..., R, C).
        smoothing: of the soft minimum (lambda), > 0, in units of cost.
        lengths: rows and columns in use, see the head of this module.
        band: Sakoe-Chiba band: cells further than this from the (slanted) diagonal are forbidden, counted in
            positions of the shorter sequence. 0 may leave no path between sequences of different lengths
            (value inf).
        backend: "torch"; "numba", compiled, CPU only, needs the package numba; "triton", float32 on a GPU, at
            most 256 rows; "auto", see `mmpt.ops.backend`.

    Returns:
        (...) in the dtype of cost.

    Raises:
        ValueError: smoothing <= 0, an empty sequence, or lengths outside 1..R, 1..C (checked on the CPU
            only).
    """
    return _align(cost, _positive(smoothing), lengths, band=band, backend=backend)


def otam(
    cost: Tensor,
    smoothing: float = 0.1,
    lengths: Lengths | None = None,
    both: bool = False,
    backend: str = "auto",
) -> Tensor:
    """Ordered temporal alignment: soft-DTW in which every column takes one row and the path may start and end
    at any row.

    Real columns 2..C are visited exactly once; rows advance by 0 or 1 per column. Column 1 may take several
    rows: there the free start above and the free start to the left count as two ways, as published. Not
        symmetric.

    Args:
        cost: (..., R, C).
        smoothing: of the soft minimum (lambda), > 0, in units of cost.
        lengths: rows and columns in use, see the head of this module.
        both: add the value of the transposed matrix.
        backend: as in `soft_dtw`.

    Returns:
        (...) in the dtype of cost.
    """
    return _align(cost, _positive(smoothing), lengths, relaxed=True, both=both, backend=backend)


def dtw(
    cost: Tensor, lengths: Lengths | None = None, band: int | None = None, backend: str = "auto"
) -> Tensor:
    """Cost of the cheapest monotone path from corner to corner (the limit smoothing -> 0 of `soft_dtw`); its
    gradient is that path."""
    return _align(cost, 0.0, lengths, band=band, backend=backend)


def hard_otam(
    cost: Tensor, lengths: Lengths | None = None, both: bool = False, backend: str = "auto"
) -> Tensor:
    """Cost of the cheapest OTAM path (the limit smoothing -> 0 of `otam`); its gradient is that path."""
    return _align(cost, 0.0, lengths, relaxed=True, both=both, backend=backend)


def dtw_path(cost: Tensor, lengths: Lengths | None = None, band: int | None = None) -> Tensor:
    """Cells of the cheapest path, (..., R, C) bool. Of equal ways into a cell the diagonal wins, then the
    left, then the upper one.

    `dtw_path(cost).nonzero()` of one matrix lists the (row, column) pairs in the order of the path.
    """
    return _path(cost, partial(dtw, lengths=lengths, band=band))


def otam_path(cost: Tensor, lengths: Lengths | None = None) -> Tensor:
    """Cells of the cheapest OTAM path in one direction, (..., R, C) bool; ties as in `dtw_path`."""
    return _path(cost, partial(hard_otam, lengths=lengths))


def soft_dtw_divergence(
    cost_xy: Tensor,
    cost_xx: Tensor,
    cost_yy: Tensor,
    smoothing: float = 0.1,
    lengths: Lengths | None = None,
    backend: str = "auto",
) -> Tensor:
    """soft_dtw(x, y) - (soft_dtw(x, x) + soft_dtw(y, y)) / 2: zero for equal sequences, which soft-DTW itself
    is not.

    Args:
        cost_xy: (..., R, C) between the sequences x and y.
        cost_xx: (..., R, R) within x.
        cost_yy: (..., C, C) within y.
        smoothing: of the soft minimum, in units of cost.
        lengths: lengths of the x and of the y.
        backend: as in `soft_dtw`.
    """
    x, y = lengths or (None, None)
    distance = partial(soft_dtw, smoothing=smoothing, backend=backend)
    return (
        distance(cost_xy, lengths=(x, y))
        - (distance(cost_xx, lengths=(x, x)) + distance(cost_yy, lengths=(y, y))) / 2
    )


class _Alignment(torch.autograd.Function):
    """Value of an alignment problem; the expected path, found on the way, is the gradient."""

    @staticmethod
    def forward(ctx, cost, solve):
        with torch.cuda.device_of(cost):  # kernels start on the current device
            value, path = solve(cost, want_path=ctx.needs_input_grad[0])
        ctx.save_for_backward(path)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (path,) = ctx.saved_tensors
        return grad[:, None, None] * path, None


def _align(
    cost: Tensor,
    smoothing: float,
    lengths: Lengths | None,
    *,
    backend: str,
    relaxed: bool = False,
    both: bool = False,
    band: int | None = None,
) -> Tensor:
    """The one door to the dynamic programmes: shapes, lengths, band and backend are settled here, `relaxed`
    is OTAM."""
    if cost.ndim < 2 or 0 in cost.shape[-2:] or not cost.is_floating_point():
        raise ValueError(
            f"alignment needs floating point costs (..., R, C) with R, C >= 1, got {cost.dtype} "
            f"{tuple(cost.shape)}."
        )
    lead = cost.shape[:-2]
    if 0 in lead:
        return cost.sum((-2, -1))
    flat = full_precision(cost).reshape(-1, *cost.shape[-2:])
    row_lengths, col_lengths = (_flat_lengths(cost, lengths, axis) for axis in (0, 1))
    if band is not None:
        flat = torch.where(_in_band(flat, row_lengths, col_lengths, band), flat, torch.inf)
    problem = {
        "row_lengths": row_lengths,
        "col_lengths": col_lengths,
        "relaxed": relaxed,
        "smoothing": smoothing,
        "both": both,
    }
    solve = partial(_solver(backend, flat, smoothing, both), **problem)
    return _Alignment.apply(flat, solve).reshape(lead).to(cost.dtype)


def _solver(backend: str, cost: Tensor, smoothing: float, both: bool):
    longest = max(cost.shape[1:]) if both else cost.shape[1]
    backend = choose(backend, cost, triton=_too_long(longest), numba=None, torch=None)
    if backend == "torch":
        return _wavefront.solve
    if backend == "triton":
        from mmpt.ops.alignment import _triton

        return _triton.solve
    from mmpt.ops.alignment import _numba

    return _numba.solve if smoothing else _compiled_hard


def _compiled_hard(
    cost: Tensor, want_path: bool, smoothing: float, **problem
) -> tuple[Tensor, Tensor | None]:
    """The minimum alone is compiled; whoever asks for its path has few matrices."""
    if want_path:
        return _wavefront.solve(cost, want_path=True, smoothing=smoothing, **problem)
    from mmpt.ops.alignment import _numba

    return _numba.solve_hard(cost, **problem), None


def _too_long(rows: int, most: int = TRITON_ROWS) -> str | None:
    """Why the Triton kernels cannot align that many rows, or None."""
    return None if rows <= most else f"it aligns at most {most} rows, not {rows}"


def _path(cost: Tensor, distance) -> Tensor:
    with torch.enable_grad():
        cost = cost.detach().requires_grad_()
        (path,) = torch.autograd.grad(distance(cost).sum(), cost)
    return path > 0


def _positive(smoothing: float) -> float:
    if not smoothing > 0:
        raise ValueError(
            f"smoothing must be > 0, got {smoothing}. For the minimum itself use dtw or hard_otam."
        )
    return smoothing


def _flat_lengths(cost: Tensor, lengths: Lengths | None, axis: int) -> Tensor:
    """Lengths of the N matrices along one axis, (N,) int64."""
    size = cost.shape[axis - 2]
    given = lengths[axis] if lengths else None
    if given is None:
        return torch.full((math.prod(cost.shape[:-2]),), size, device=cost.device)
    flat = torch.as_tensor(given, dtype=torch.int64, device=cost.device).expand(cost.shape[:-2]).reshape(-1)
    if flat.device.type == "cpu" and not bool(((flat >= 1) & (flat <= size)).all()):
        raise ValueError(
            f"{('row', 'column')[axis]} lengths must lie in 1..{size}, got {flat.min()}..{flat.max()}."
        )
    return flat


def _in_band(cost: Tensor, row_lengths: Tensor, col_lengths: Tensor, band: int) -> Tensor:
    if band < 0:
        raise ValueError(f"band must be >= 0, got {band}.")
    row, col = (
        torch.arange(cost.shape[1], device=cost.device)[:, None],
        torch.arange(cost.shape[2], device=cost.device),
    )
    last_row, last_col = row_lengths[:, None, None] - 1, col_lengths[:, None, None] - 1
    return (row * last_col - col * last_row).abs() <= band * torch.maximum(last_row, last_col)


def drop_dtw(
    cost: Tensor,
    drop_cost: Tensor | float,
    smoothing: float = 0.0,
    lengths: Lengths | None = None,
    backend: str = "auto",
) -> Tensor:
    """Drop-DTW: DTW of all rows (steps) with the columns (frames) that are worth matching; any column may be
    dropped at a price.

    matched[i, j] = cost[i, j] + min(best[i-1, j-1], best[i, j-1], matched[i-1, j]);  dropped[i, j] =
    drop_cost[j] + best[i, j-1]; best = min(matched, dropped), starting with best[0, j] = the first j drop
    costs summed. The gradient with respect to `drop_cost` says which columns are dropped, that with respect
    to `cost` where the rest is matched.

    Args:
        cost: (..., R, C), below 1e18 in float32.
        drop_cost: one price, or (..., C) a price per column.
        smoothing: 0 for the minimum, > 0 for the soft minimum.
        lengths: rows and columns in use, see the head of this module.
        backend: "torch", "triton" or "auto", as in `soft_dtw`.

    Returns:
        (...) in the dtype of cost.
    """
    rows, cols = cost.shape[-2:]
    flat = full_precision(cost).reshape(-1, rows, cols)
    drop = (
        torch.as_tensor(drop_cost, dtype=flat.dtype, device=flat.device)
        .expand(*cost.shape[:-2], cols)
        .reshape(-1, cols)
    )
    row_lengths, col_lengths = (_flat_lengths(cost, lengths, axis) for axis in (0, 1))
    if choose(backend, flat, triton=_too_long(rows, TRITON_ROWS // 2 - 1), torch=None) == "triton":
        value = _DropAlignment.apply(flat, drop, row_lengths, col_lengths, smoothing)
        return value.reshape(cost.shape[:-2]).to(cost.dtype)
    if lengths:
        inside = _wavefront.inside(flat, row_lengths, col_lengths)
        flat, drop = torch.where(inside, flat, 0.0), torch.where(inside[:, 0], drop, 0.0)
    never = (
        torch.finfo(flat.dtype).max ** 0.5
    )  # finite: an infinite cost would turn the gradients of the soft minimum into NaN
    least = partial(_least, smoothing=smoothing)

    # diagonal k holds the cells (i, k - i), i = 0..R, as (N, R + 1); row 0 has nothing matched yet
    costs = pad(_shear(flat, never), (1, 0), value=never)
    drops = _shear(drop[:, None].expand(-1, rows + 1, -1), 0.0)
    nowhere = flat.new_full((len(flat), rows + 1), never)
    origin = torch.cat([torch.zeros_like(nowhere[:, :1]), nowhere[:, 1:]], 1)
    best, matched = [nowhere, origin], nowhere  # diagonals -1 and 0
    for k in range(1, rows + cols + 1):
        dropped = drops[..., k - 1] + best[-1]
        entry = least(best[-2][:, :-1], best[-1][:, 1:], matched[:, :-1])
        matched = torch.cat([nowhere[:, :1], costs[..., k - 1] + entry], 1)
        best.append(least(matched, dropped))
    value = torch.stack(best, 1)[
        torch.arange(len(flat), device=flat.device), row_lengths + col_lengths + 1, row_lengths
    ]
    return value.reshape(cost.shape[:-2]).to(cost.dtype)


class _DropAlignment(torch.autograd.Function):
    """Drop-DTW by kernels, which find the gradients on the way."""

    @staticmethod
    def forward(ctx, cost, drop, row_lengths, col_lengths, smoothing):
        from mmpt.ops.alignment._triton import solve_drop

        wanted = any(ctx.needs_input_grad[:2])
        with torch.cuda.device_of(cost):
            value, *paths = solve_drop(cost, drop, row_lengths, col_lengths, smoothing, wanted)
        ctx.save_for_backward(*paths)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        path, dropped = ctx.saved_tensors
        return grad[:, None, None] * path, grad[:, None] * dropped, None, None, None


def _least(*terms: Tensor, smoothing: float) -> Tensor:
    stacked = torch.stack(terms)
    return -smoothing * torch.logsumexp(stacked / -smoothing, 0) if smoothing else stacked.amin(0)


def _shear(x: Tensor, fill: float) -> Tensor:
    """(N, R, C) -> (N, R, C + R - 1) with row i moved i places to the right, so that columns are
    anti-diagonals."""
    count, rows, cols = x.shape
    return pad(x, (0, rows), value=fill).reshape(count, -1)[:, :-rows].reshape(count, rows, cols + rows - 1)


@torch.no_grad()
def assign_steps(
    cost: Tensor, exactly_one: bool = True, bg_cost: float = 0.0, lengths: Lengths | None = None
) -> Tensor:
    """Places K ordered steps on T frames at the least summed cost; every step occurs, frames between steps
    are background.

    With `exactly_one` and free background this is the choice of frames t_1 < ... < t_K with the least sum of
    cost[t_k, k].
    Ties: among equal ways into a frame stay in the state, else come from the state before, else from the one
    before that (skipping the background between two steps); at the end prefer the last step to background
    after it. Accumulates in float64.

    Args:
        cost: (..., T, K), e.g. -log_softmax of the step scores of each frame.
        exactly_one: each step takes one frame; false: one or more in a row.
        bg_cost: cost of a background frame.
        lengths: frames and steps in use, see the head of this module.

    Returns:
        (..., T, K) bool.

    Raises:
        ValueError: fewer frames than steps.
    """
    frames, steps = cost.shape[-2:]
    n_frames, n_steps = (_flat_lengths(cost, lengths, axis) for axis in (0, 1))
    if bool((n_frames < n_steps).any()):
        raise ValueError(
            f"cannot place {int(n_steps.max())} steps in order on {int(n_frames.min())} frames: every "
            "step needs a frame."
        )
    flat = cost.reshape(-1, frames, steps).double()
    item = torch.arange(len(flat), device=cost.device)

    # states: 0 = background before step 1, 2k - 1 = step k, 2k = background after it
    states = 2 * steps + 1
    is_step = torch.arange(states, device=cost.device) % 2 == 1
    total = flat.new_full((len(flat), states), torch.inf)
    total[:, 0] = 0.0
    moves = []
    for t in range(frames):
        stay = total.masked_fill(is_step, torch.inf) if exactly_one else total
        from_one = pad(total, (1, 0), value=torch.inf)[:, :-1]
        from_two = pad(total, (2, 0), value=torch.inf)[:, :-2].masked_fill(~is_step, torch.inf)
        entry = torch.minimum(stay, from_one)
        move = torch.where(from_two < entry, 2, (from_one < stay).long())
        price = torch.full_like(total, bg_cost)
        price[:, 1::2] = flat[:, t]
        running = (t < n_frames)[:, None]
        total = torch.where(running, torch.minimum(entry, from_two) + price, total)
        moves.append(torch.where(running, move, 0))

    last = 2 * n_steps - 1
    state = torch.where(total[item, last + 1] < total[item, last], last + 1, last)
    assigned = torch.zeros_like(flat, dtype=torch.bool)
    for t in reversed(range(frames)):
        in_step = (state % 2 == 1) & (t < n_frames)
        assigned[item, t, (state // 2).clamp_max(steps - 1)] = in_step
        state = state - moves[t][item, state]
    return assigned.reshape(cost.shape)
