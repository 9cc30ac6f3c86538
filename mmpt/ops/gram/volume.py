"""Gramian volumes of an anchor with tuples of embeddings, and the scores of GRAM's peers from the same dot
products.

Shapes: N anchors, M tuples, K modalities in a tuple, D width, C items of one block.

The volume of anchor t with tuple X = (x_1 .. x_K) is sqrt(det Gram(t, x_1, .., x_K)). It factors into the
tuple's own volume and the distance of t from the tuple's span,

    V(t, X) = s(X) * sqrt(|t|^2 - sum_m (t . w_m)^2),        w_1 .. w_K = orthonormal basis of X,

so each tuple is orthonormalized once and all pairs cost K matrix products. Source: GRAM (ICLR 2025, arXiv
2412.11959). The linear-memory loss over these volumes is `mmpt.ops.gram.contrast`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from mmpt.ops.precision import autocast_off, full_precision

SCORES = ("volume", "distance", "logvolume")
# a residual below this many machine epsilons of its vector is rounding: the vector lies in the span of the
# earlier ones
ROUNDING = 8
# numbers in one block: on a CPU a few MB, which stay in cache; on a GPU enough for few and full launches
BLOCK_NUMBERS = {"cpu": 2**20, "cuda": 2**24}


class TupleBasis(NamedTuple):
    """Orthonormal bases of M tuples."""

    directions: Tensor  # (K, M, D) unit and mutually orthogonal; zero where missing or linearly dependent
    norms: Tensor  # (K, M) distance of each modality from the span of the earlier ones; 1 where missing
    count: Tensor  # (M,) modalities present


def orthonormal_tuples(modalities: Sequence[Tensor], mask: Tensor | None = None) -> TupleBasis:
    """Orthonormalizes every tuple: Gram-Schmidt with one re-orthogonalisation.

    Args:
        modalities: K tensors (M, D); row j of each belongs to tuple j.
        mask: (M, K) bool, false = missing; its direction is skipped.

    Returns:
        The bases, in the dtype of the input (float32 for half precision). A linearly dependent vector gives a
        zero direction, norm 0 and no gradient, so that duplicates are harmless.

    Raises:
        ValueError: no modality, shapes that differ, or a mask of another shape.
    """
    check_shapes(modalities)
    modalities = [full_precision(x) for x in modalities]
    shape = (len(modalities[0]), len(modalities))
    if mask is None:
        mask = torch.ones(shape, dtype=torch.bool, device=modalities[0].device)
    if mask.shape != shape:
        raise ValueError(f"mask has shape {tuple(mask.shape)}; expected (tuples, modalities) = {shape}.")
    directions, norms, *_ = _Orthonormalize.apply(mask, torch.zeros_like(modalities[0][0]), *modalities)
    return TupleBasis(directions, norms, mask.sum(1))


def centred_tuples(
    modalities: Sequence[Tensor], mask: Tensor, centre: Tensor
) -> tuple[TupleBasis, Tensor, Tensor]:
    """Orthonormal bases seen from a centre c (D,), for products of float32 that lose nothing near it.

    Returns:
        The bases, the first direction w as w - c; per direction (K, M) what its product with t - c lacks:
        -(w - c) . w_k, and for the first, (t - w) . w lacks half of 1 - |w|^2 - |w - c|^2 and, of its anchor,
        half of |t|^2 - 1 - |t - c|^2; and |w|^2 - 1 (M,): rounding, or -1 where there is no first vector.
    """
    directions, norms, shift, excess = _Orthonormalize.apply(mask, centre, *modalities)
    return TupleBasis(directions, norms, mask.sum(1)), shift, excess


def length_excess(x: Tensor) -> Tensor:
    """|x|^2 - 1 of rows, to the last digit where they are almost unit."""
    return (torch.linalg.vector_norm(x, dim=1, dtype=torch.float64).square() - 1).to(x.dtype)


def gram_volume(
    anchor: Tensor,
    modalities: Sequence[Tensor],
    mask: Tensor | None = None,
    score: str = "volume",
    chunk: int | None = None,
    dim_norm: bool = False,
    exact: bool = True,
) -> Tensor:
    """Volume of every anchor with every tuple; small = close.

    Works in float64 inside (autocast off): the volume of a well-aligned tuple is a difference of nearly equal
    numbers, of which half precision would leave nothing. Gradients stay finite everywhere.

    Args:
        anchor: (N, D).
        modalities: K >= 1 tensors (M, D).
        mask: (M, K) bool, false = missing modality; the same as leaving it out of the tuple.
        score: `volume`; `distance` of the anchor from the tuple's span (the volume without the tuple's own);
            `logvolume`.
        chunk: anchors per block; null picks blocks of a few MB. Blocks are recomputed in backward.
        dim_norm: geometric mean V^(1/K) over the modalities present, so that tuples of different size
            compare.
        exact: false works in the dtype of the result: much faster on a GPU; volumes below about 1e-3 of the
            vectors are then rounding, which mining of negatives does not mind.

    Returns:
        (N, M), in the dtype of the input (float32 for half precision). A tuple without any modality is
        infinitely far.

    Raises:
        ValueError: no modality, shapes that differ, or an unknown score.
    """
    check_shapes(modalities, anchor)
    with autocast_off(anchor):
        result = torch.promote_types(anchor.dtype, torch.float32)
        dtype = torch.float64 if exact else result
        basis = orthonormal_tuples([x.to(dtype) for x in modalities], mask)
        power = score_power(basis.count, score, dim_norm)
        log_own = log_own_volume(basis, score)
        blocks = [
            checkpoint(_volume_block, block, basis.directions, log_own, power, score, use_reentrant=False)
            for block in anchor.to(dtype).split(chunk or rows_per_block(basis.norms.numel(), anchor.device))
        ]
        return torch.cat(blocks).masked_fill(basis.count == 0, torch.inf).to(result)


def paired_volume(
    anchor: Tensor,
    modalities: Sequence[Tensor],
    mask: Tensor | None = None,
    score: str = "volume",
    dim_norm: bool = False,
) -> Tensor:
    """Volume of anchor i with tuple i from explicit residuals: full relative precision at any alignment.

    Args: as in `gram_volume`, with N = M.

    Returns:
        (N,). A tuple without any modality is infinitely far.
    """
    check_shapes([anchor, *modalities])
    with autocast_off(anchor):
        if mask is None:
            mask = torch.ones(len(anchor), len(modalities), dtype=torch.bool, device=anchor.device)
        joined = torch.cat(
            [mask, mask.new_ones(len(mask), 1)], dim=1
        )  # the anchor as the last vector of its tuple
        directions, norms, count = orthonormal_tuples([x.double() for x in (*modalities, anchor)], joined)
        tuples = TupleBasis(directions[:-1], norms[:-1], count - 1)
        power = score_power(tuples.count, score, dim_norm)
        squared = norms[-1].square().clamp_min(least_square(power, norms.dtype))
        volume = score_of(squared, log_own_volume(tuples, score), power, score)
        return volume.masked_fill(tuples.count == 0, torch.inf).to(
            torch.promote_types(anchor.dtype, torch.float32)
        )


# ------------------------------------------------------------------------------------------------------ peers


def triangle_score(anchor: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """(|u|^2 |w|^2 - (u . w)^2) / 2 with edges u = first - anchor, w = second - anchor: twice the squared
    triangle area; small = close.

    Args:
        anchor: (N, D).
        first, second: (M, D).

    Returns:
        (N, M), without an N x M x D tensor. Source: TRIANGLE (arXiv 2509.24734).
    """
    to_first, to_second = anchor @ first.T, anchor @ second.T
    length = anchor.square().sum(1, keepdim=True)
    u = length + first.square().sum(1) - 2 * to_first
    w = length + second.square().sum(1) - 2 * to_second
    uw = length - to_first - to_second + (first * second).sum(1)
    return (u * w - uw.square()) / 2


def multilinear_product(query: Tensor, others: Sequence[Tensor]) -> Tensor:
    """Multilinear inner products sum_d query_i * prod_m others_m,j of Symile (arXiv 2411.01053): (N, D), K x
    (M, D) -> (N, M)."""
    return query @ torch.stack(tuple(others)).prod(0).T


def leading_components(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Singular values and leading left singular vector of each tuple, from the small Gram matrix.

    Args:
        vectors: (M, K, D), one tuple a row; zero rows for missing vectors.

    Returns:
        values (M, K) ascending, and vectors (M, D) of unit length (zero for an all-zero tuple), signed to
        agree with the tuple's mean. Gradients stay finite for repeated singular values: directions that are
        not determined pass none.
    """
    values, weights = _TopEigenvector.apply(vectors @ vectors.mT)
    least = torch.finfo(values.dtype).eps
    leading = (weights[:, None] @ vectors).squeeze(1)  # (M, D) = sigma_1 u_1
    # The product with the sum of the tuple decides the sign; a tuple whose sum vanishes keeps the solver's.
    leading = torch.where((leading * vectors.sum(1)).sum(1, keepdim=True) < 0, -leading, leading)
    return values.clamp_min(least).sqrt(), leading / values[:, -1:].clamp_min(least).sqrt()


def eigen_score(vectors: Tensor, count: Tensor | None = None) -> Tensor:
    """Largest eigenvalue of the Gram matrix over the number of unit vectors: 1 when all agree up to sign, 1/n
    when orthogonal.

    Args:
        vectors: (M, n, D) unit rows, the anchor among them; zero rows for missing vectors.
        count: (M,) vectors present; default n.

    Returns:
        (M,) in [1/n, 1].
    """
    largest = torch.linalg.eigvalsh(vectors @ vectors.mT)[:, -1]
    return largest / (vectors.shape[1] if count is None else count.clamp_min(1))


class _TopEigenvector(torch.autograd.Function):
    """Eigenvalues (M, n) ascending and last eigenvector (M, n) of symmetric matrices, with a backward that
    skips repeated eigenvalues.

    torch's own backward divides by every eigenvalue gap, also those that the last eigenvector does not need
    (0/0 for duplicates).
    """

    @staticmethod
    def forward(ctx, matrices: Tensor) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(matrices)
        ctx.save_for_backward(values, vectors)
        return values, vectors[..., -1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_values: Tensor, grad_last: Tensor) -> Tensor:
        values, vectors = ctx.saved_tensors
        gap = values[:, -1:] - values
        apart = gap > 100 * torch.finfo(values.dtype).eps * values[:, -1:].abs()
        along = (grad_last[:, None] @ vectors).squeeze(1)  # (M, n)
        mixed = torch.where(apart, along / gap.where(apart, 1.0), 0.0)
        inner = torch.diag_embed(grad_values)
        inner[:, :, -1] += mixed
        gradient = vectors @ inner @ vectors.mT
        return (gradient + gradient.mT) / 2


# ----------------------------------------------------------------------------------------- orthonormalization


class _Orthonormalize(torch.autograd.Function):
    """X = L W for each tuple (rows of W orthonormal, L lower triangular), with the closed-form backward of
    the QR factorisation.

    What is orthonormalized are the first vector that is there, and how others differ from it at their length:
    the same span, of which float32 loses nothing where all are close. Only W and factors of K x K are kept;
    the work runs in blocks of tuples, which stay in cache.
    """

    @staticmethod
    def forward(ctx, present: Tensor, centre: Tensor, *modalities: Tensor) -> tuple[Tensor, ...]:
        n_tuples, width = modalities[0].shape
        directions = modalities[0].new_empty(len(modalities), n_tuples, width)
        norms = directions.new_empty(len(modalities), n_tuples)
        lower = directions.new_empty(n_tuples, len(modalities), len(modalities))
        kept = torch.empty_like(lower[..., 0])  # 1, or 0 for missing and dependent vectors
        ratios = torch.empty_like(kept)  # of the first that are taken off the others; of itself 0
        first = torch.empty(n_tuples, 1, dtype=torch.long, device=kept.device)  # of those that are there
        for block in _tuple_blocks(directions):
            vectors = torch.stack([x[block] for x in modalities], 1)  # (C, K, D)
            lengths = vectors.norm(dim=2)
            there = present[block] & (lengths > 0)
            first[block] = there.float().argmax(1, keepdim=True)
            ratio = torch.where(there, lengths / lengths.gather(1, first[block]), 0.0)
            ratios[block] = ratio.scatter(1, first[block], 0.0)
            common = vectors.gather(1, first[block][..., None].expand(-1, 1, width))
            vectors = torch.addcmul(vectors, ratios[block][..., None], common, value=-1)
            basis, lower[block], norm, kept[block] = _gram_schmidt(vectors, lengths, present[block])
            directions[:, block], norms[:, block] = basis.transpose(0, 1), norm.T
        ctx.save_for_backward(directions, norms, lower, kept, ratios, first, centre)
        seen = torch.cat([(directions[0] - centre)[None], directions[1:]])
        shift = -(seen[0] * seen).sum(2)
        excess = length_excess(directions[0])
        shift[0] = (shift[0] - excess) / 2
        ctx.mark_non_differentiable(excess)
        return seen, norms, shift, excess

    @staticmethod
    @once_differentiable
    def backward(
        ctx, grad_directions: Tensor, grad_norms: Tensor, grad_shift: Tensor, _: Tensor
    ) -> tuple[Tensor | None, ...]:
        directions, norms, lower, kept, ratios, first, centre = ctx.saved_tensors
        gradients = [torch.empty_like(x) for x in directions]
        identity = torch.eye(len(directions), dtype=lower.dtype, device=lower.device)
        for block in _tuple_blocks(directions):
            basis, incoming = (
                directions[:, block].transpose(0, 1),
                grad_directions[:, block].transpose(0, 1),
            )  # (C, K, D)
            incoming = torch.addcmul(incoming, grad_shift[:, block].T[..., None], centre)
            keep, radial = kept[block], (grad_norms[:, block] * norms[:, block]).T
            mixed = -(incoming @ basis.mT) * keep[..., None]  # (C, K, K)
            symmetric = mixed.tril() + mixed.tril(-1).mT + torch.diag_embed(keep * radial)
            # triangular, so no pivots that a GPU would have to report to the host
            inverse = torch.linalg.solve_triangular(lower[block], identity, upper=False).mT
            solved = torch.baddbmm((inverse * keep[:, None]) @ incoming, inverse @ symmetric, basis)
            place = first[block][..., None].expand(-1, 1, solved.shape[2])
            solved.scatter_add_(1, place, -(ratios[block][:, None] @ solved))
            for k, gradient in enumerate(gradients):
                gradient[block] = solved[:, k]
        return None, None, *gradients


def _gram_schmidt(vectors: Tensor, lengths: Tensor, present: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Orthonormal rows (C, K, D), written over the vectors; lower factors (C, K, K); norms and kept flags (C,
    K). What is left of a vector is rounding below some epsilons of `lengths` (C, K)."""
    shortest = ROUNDING * torch.finfo(vectors.dtype).eps * lengths
    lower = torch.eye(vectors.shape[1], dtype=vectors.dtype, device=vectors.device).repeat(len(vectors), 1, 1)
    norms, kept = torch.ones_like(shortest), torch.zeros_like(shortest)
    for k in range(vectors.shape[1]):
        residual, basis = vectors[:, k : k + 1], vectors[:, :k]
        for _ in range(2 if k else 0):  # twice is enough: the second pass removes the rounding of the first
            along = residual @ basis.mT  # (C, 1, k)
            residual = torch.baddbmm(residual, along, basis, alpha=-1)
            lower[:, k, :k] += along[:, 0]
        norm = residual[:, 0].norm(dim=1)
        keep = present[:, k] & (norm > shortest[:, k])
        lower[:, k, k] = norm.where(keep, 1.0)
        norms[:, k] = torch.where(present[:, k], norm * keep, 1.0)
        kept[:, k] = keep
        vectors[:, k] = residual[:, 0] * (keep / lower[:, k, k])[:, None]
    return vectors, lower, norms, kept


def _tuple_blocks(vectors: Tensor) -> Iterator[slice]:
    n_vectors, n_tuples, width = vectors.shape
    step = max(1, _block_numbers(vectors.device) // (2 * n_vectors * width))
    return (slice(start, start + step) for start in range(0, n_tuples, step))


# ----------------------------------------------------------------------------------------------------- shared
# with ops.gram_contrast


def score_power(count: Tensor, score: str, dim_norm: bool) -> Tensor | None:
    """Exponent (M,) of the volume in its log form; None where the plain product needs no logarithm."""
    if score not in SCORES:
        raise ValueError(f"score={score!r}: expected one of {', '.join(SCORES)}.")
    if dim_norm:
        return 1.0 / count.clamp_min(1)
    return torch.ones_like(count) if score == "logvolume" else None


def log_own_volume(basis: TupleBasis, score: str) -> Tensor:
    """Log of each tuple's own volume (M,); zero for `distance`, which leaves it out."""
    if score == "distance":
        return torch.zeros_like(basis.norms[0])
    least = (
        math.sqrt(square_floor(basis.norms.dtype))
        if score == "logvolume"
        else torch.finfo(basis.norms.dtype).tiny
    )
    return basis.norms.clamp_min(least).log().sum(0)


def score_of(squared: Tensor, log_own: Tensor, power: Tensor | None, score: str) -> Tensor:
    """Score of positive squared distances (.., M) from tuples with log volumes (M,)."""
    if power is None:
        return squared.sqrt() * log_own.exp()
    log_volume = (log_own + 0.5 * squared.log()) * power
    return log_volume if score == "logvolume" else log_volume.exp()


def square_floor(dtype: torch.dtype) -> float:
    """Share of |t|^2 below which a squared distance computed by subtraction is noise."""
    return 1e-12 if dtype == torch.float64 else 1e-6


def least_square(power: Tensor | None, dtype: torch.dtype) -> float:
    """Least squared distance of an explicit residual: its square root is harmless near zero, its logarithm is
    not."""
    return 1e-30 if power is None else square_floor(dtype)


def _block_numbers(device: torch.device) -> int:
    return BLOCK_NUMBERS.get(device.type, BLOCK_NUMBERS["cpu"])


def rows_per_block(n_directions: int, device: torch.device) -> int:
    """Anchors per block of dot products: a power of two, which matrix products like best."""
    return 2 ** max(5, (_block_numbers(device) // max(1, n_directions)).bit_length() - 1)


def check_shapes(modalities: Sequence[Tensor], anchor: Tensor | None = None) -> None:
    """K tensors (M, D), and an anchor (N, D) of the same width."""
    if not modalities:
        raise ValueError("modalities is empty: a volume needs at least one modality besides the anchor.")
    shape = tuple(modalities[0].shape)
    for number, x in enumerate(modalities):
        if x.dim() != 2 or x.shape != shape:
            raise ValueError(
                f"modalities[{number}] has shape {tuple(x.shape)}; expected (M, D) as modalities[0], "
                f"whose shape is {shape}."
            )
    if anchor is not None and (anchor.dim() != 2 or anchor.shape[1] != shape[1]):
        raise ValueError(
            f"anchor has shape {tuple(anchor.shape)}; expected (N, {shape[1]}), the width of the modalities."
        )


def _volume_block(
    anchor: Tensor, directions: Tensor, log_own: Tensor, power: Tensor | None, score: str
) -> Tensor:
    """Scores (C, M) of a block of anchors, float64."""
    along = (anchor @ directions.flatten(0, 1).T).unflatten(1, directions.shape[:2])  # (C, K, M)
    squared = anchor.square().sum(1, keepdim=True) - along.square().sum(1)
    return score_of(squared.clamp_min(least_square(power, squared.dtype)), log_own, power, score)
