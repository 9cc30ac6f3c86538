"""Contrastive cross entropy over Gramian volumes in linear memory.

Shapes: N anchors, M tuples, K modalities in a tuple, D width, P matched pairs, C anchors of one block.
Source: GRAM (arXiv 2412.11959), losses L_D2A and L_A2D, and its data-anchor matching.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmpt.ops import gram
from mmpt.ops.backend import choose
from mmpt.ops.precision import autocast_off, product

KEEP_NUMBERS = (
    2**22
)  # up to here (16 MB in float32) dot products are kept for backward instead of being recomputed


def volume_cross_entropy(
    anchor: Tensor,
    modalities: Sequence[Tensor],
    scale: Tensor | float,
    *,
    mask: Tensor | None = None,
    anchor_mask: Tensor | None = None,
    first_row: int = 0,
    first_column: int = 0,
    pairs: int | None = None,
    label_smoothing: float = 0.1,
    score: str = "volume",
    dim_norm: bool = False,
    chunk: int | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Cross entropies of the logits -scale * volume over rows (anchor to data) and over columns (data to
    anchor).

    Anchor `first_row + p` belongs to tuple `first_column + p`. The N x M matrix is never stored: blocks of
    anchors are computed, reduced, and recomputed in backward. Matched pairs use explicit residuals; other
    squared distances are clamped at 1e-6 (float64: 1e-12) of |t|^2, below which they pass no gradient.

    Args:
        anchor: (N, D).
        modalities: K >= 1 tensors (M, D).
        scale: inverse temperature.
        mask: (M, K) bool, false = missing modality. A tuple with none is neither a class nor a row.
        anchor_mask: (N,) bool, false = missing anchor, left out likewise.
        first_row, first_column, pairs: where the matched pairs lie; default: all from (0, 0).
        label_smoothing: share of the target spread evenly over all classes.
        score, dim_norm: as in `mmpt.ops.gram.gram_volume`.
        chunk: anchors per block; null picks blocks of a few MB.
        backend: "auto" (see `mmpt.ops.backend`), "torch", or "triton", which computes in float32 and picks
            its own blocks.

    Returns:
        (a2d, d2a), means over valid pairs; zero when there is none.

    Raises:
        ValueError: no modality, shapes that differ, pairs outside the matrix, an unknown score, or a backend
            that cannot be used.
    """
    gram.check_shapes(modalities, anchor)
    backend = choose(backend, anchor, triton=None, torch=None)
    with autocast_off(anchor):
        dtype = torch.promote_types(anchor.dtype, torch.float32)
        anchor, modalities = anchor.to(dtype), [x.to(dtype) for x in modalities]
        layout = _lay_out(anchor, modalities[0], mask, anchor_mask, (first_row, first_column), pairs)
        # The matched anchor joins its tuple as the last vector: its norm there is the pair's distance.
        matched = F.pad(
            anchor[layout.row_span], (0, 0, first_column, len(modalities[0]) - layout.column_span.stop)
        )
        present = (
            torch.ones(len(matched), len(modalities), dtype=torch.bool, device=anchor.device)
            if mask is None
            else mask
        )
        joined = torch.cat([present, torch.ones_like(present[:, :1])], dim=1)
        centre = layout.row_share @ anchor.detach()
        (directions, norms, count), shift, excess = gram.centred_tuples(
            [*modalities, matched], joined, centre
        )
        tuples = gram.TupleBasis(directions[:-1], norms[:-1], count - 1)
        power = gram.score_power(tuples.count, score, dim_norm)
        distance = norms[-1, layout.column_span].clamp_min(math.sqrt(gram.least_square(power, dtype)))
        rows = chunk or gram.rows_per_block(present.numel(), anchor.device)
        options = _Options(score, power, label_smoothing, rows, backend)
        scale = torch.as_tensor(scale, dtype=dtype, device=anchor.device)
        return _VolumeCrossEntropy.apply(
            anchor,
            centre,
            directions,
            shift,
            excess,
            gram.log_own_volume(tuples, score),
            distance,
            scale,
            layout,
            options,
        )


def hard_negative_weights(logits: Tensor, own: Tensor, floor: float = 1e-4) -> Tensor:
    """Sampling weights of negatives: softmax plus a floor, zero for the own pair, not renormalized.

    Args:
        logits: (N, M), high = close; -inf = never drawn.
        own: (N,) column of each row's own pair.
        floor: added to every possible negative, so that each can be drawn.
    """
    weights = torch.where(logits.isneginf(), 0.0, logits.softmax(dim=1) + floor)
    return weights.scatter(1, own[:, None], 0.0)


def pair_cross_entropy(
    logits: Tensor, valid: Tensor | None = None, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Cross entropies of the rows and of the columns of a dense square matrix against its diagonal.

    Args:
        logits: (N, N), high = close.
        valid: (N,) bool, false = this pair is neither a row nor a class; default all.
        label_smoothing: share of the target spread evenly over all classes.

    Returns:
        Means over valid pairs; zero when there is none.
    """
    if valid is None:
        valid = torch.ones(len(logits), dtype=torch.bool, device=logits.device)
    share = valid.to(logits.dtype) / valid.sum().clamp_min(1)
    # Excluded classes are very low but finite, so that 0 * logit stays 0; an invalid row looks at its own
    # column only.
    own = torch.diag_embed(torch.ones_like(share)).bool()
    masked = logits.masked_fill(~((valid & valid[:, None]) | own), torch.finfo(logits.dtype).min / 4)

    def mean(rows: Tensor, plain: Tensor) -> Tensor:
        target = (1 - label_smoothing) * plain.diagonal() + label_smoothing * (plain @ share)
        return (share * (rows.logsumexp(1) - target)).sum()

    return mean(masked, logits), mean(masked.T, logits.T)


class _Layout(NamedTuple):
    """Where matched pairs lie in the N x M matrix, and what takes part."""

    row_span: slice  # anchors of the pairs
    column_span: slice  # their tuples
    pair_share: Tensor  # (P,) weight of each pair in the mean: 1 / valid pairs, or 0
    row_share: Tensor  # (N,) 1 / valid anchors, or 0
    column_share: Tensor  # (M,) 1 / valid tuples, or 0
    row_bias: Tensor | None  # (N, 1) 0, or -inf for a missing anchor; None: all are there
    column_bias: Tensor | None  # (M,) 0, or -inf for an empty tuple; None: all are there


class _Options(NamedTuple):
    score: str
    power: Tensor | None  # (M,), see gram.score_power
    label_smoothing: float
    block_rows: int
    backend: str


def _lay_out(
    anchor: Tensor, modality: Tensor, mask, anchor_mask, start: tuple[int, int], pairs: int | None
) -> _Layout:
    room = min(len(anchor) - start[0], len(modality) - start[1])
    pairs = room if pairs is None else pairs
    if not 0 <= pairs <= room:
        raise ValueError(
            f"{pairs} pairs from {start} do not fit into {len(anchor)} anchors x {len(modality)} tuples."
        )
    rows, columns = (slice(first, first + pairs) for first in start)
    there = (
        torch.ones(len(anchor), dtype=torch.bool, device=anchor.device)
        if anchor_mask is None
        else anchor_mask
    )
    filled = (
        torch.ones(len(modality), dtype=torch.bool, device=anchor.device) if mask is None else mask.any(1)
    )

    def share(valid: Tensor) -> Tensor:
        return valid.to(anchor.dtype) / valid.sum().clamp_min(1)

    def bias(valid: Tensor) -> Tensor:
        return torch.zeros_like(valid, dtype=anchor.dtype).masked_fill(~valid, -torch.inf)

    return _Layout(
        rows,
        columns,
        share(there[rows] & filled[columns]),
        share(there),
        share(filled),
        None if anchor_mask is None else bias(there)[:, None],
        None if mask is None else bias(filled),
    )


class _VolumeCrossEntropy(torch.autograd.Function):
    """The two cross entropies of `volume_cross_entropy` by blocks of anchors.

    With E the score of a pair and H = dL/dE * dE/dlog(distance), every gradient is a matrix product: the
    anchor receives rowsum(H / d^2) t - sum_m (H / d^2 * P_m) w_m, direction m -(H / d^2 * P_m)^T t, and log s
    the column sums of H.

    Where all items are close, P_1 is near 1 and |t|^2 - P_1^2 a small difference. So everything is seen from
    a common centre c, and distances are measured from the tip of w_1, which lies in the span too: with
    q = (t - w_1) . w_1 = P_1 - |w_1|^2, d^2 = |t|^2 - |w_1|^2 - 2 q - q^2 - P_2^2 - .. holds only numbers
    that are small with the distances.

    `directions` and `shift` (K + 1, M, ..) are those of `mmpt.ops.gram.centred_tuples`, with the matched
    anchors as the last ones, which take no part here: slicing them off outside would cost a padded copy in
    backward.
    """

    @staticmethod
    def forward(
        ctx,
        anchor,
        centre,
        directions,
        shift,
        excess,
        log_own,
        pair_distance,
        scale,
        layout: _Layout,
        options: _Options,
    ) -> tuple[Tensor, Tensor]:
        ctx.layout, ctx.options = layout, options
        vectors = Centred.of(anchor, centre, directions[:-1], shift[:-1], excess)
        given = vectors, log_own, pair_distance, scale
        kept: list[Tensor] = []
        if options.backend == "triton":
            with torch.cuda.device_of(anchor):
                found = _kernels().sums(given, layout, options)
        else:
            found = _sums(given, layout, options, kept)
        row_lse, row_mean, column_lse, column_mean, pair_logit = found
        ctx.save_for_backward(*vectors, log_own, pair_distance, scale, row_lse, column_lse, *kept)
        smoothing = options.label_smoothing
        target = (1 - smoothing) * pair_logit
        a2d = row_lse[layout.row_span] - target - smoothing * row_mean[layout.row_span]
        d2a = column_lse[layout.column_span] - target - smoothing * column_mean[layout.column_span]
        valid = layout.pair_share > 0  # an invalid row may be infinite: 0 * inf
        return tuple((layout.pair_share * loss.where(valid, 0.0)).sum() for loss in (a2d, d2a))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_a2d: Tensor, grad_d2a: Tensor) -> tuple[Tensor | None, ...]:
        n_vectors = len(Centred._fields)
        vectors = Centred(*ctx.saved_tensors[:n_vectors])
        log_own, pair_distance, scale, row_lse, column_lse, *kept = ctx.saved_tensors[n_vectors:]
        given = vectors, log_own, pair_distance, scale
        layout, options = ctx.layout, ctx.options
        softmaxes = _Softmaxes(row_lse, column_lse, grad_a2d, grad_d2a, layout, options.label_smoothing)
        with autocast_off(scale):
            if options.backend == "triton":
                with torch.cuda.device_of(scale):
                    found = _kernels().gradients(given, softmaxes, layout, options)
            else:
                found = _gradients(given, softmaxes, layout, options, kept)
        grad_anchor, grad_bases, grad_shift, *others = found
        # the matched anchors, which are the last directions, take no part
        grad_bases, grad_shift = F.pad(grad_bases, (0, 0, 0, 0, 0, 1)), F.pad(grad_shift, (0, 0, 0, 1))
        return grad_anchor, None, grad_bases, grad_shift, None, *others, None, None


class Centred(NamedTuple):
    """Anchors and tuples seen from a common centre."""

    items: Tensor  # (N, D) t - c
    bases: Tensor  # (K, M, D) w_1 - c, w_2 ..
    centre: Tensor  # (D,)
    shift: Tensor  # (K, M) what products of an item with the bases lack
    row_shift: Tensor  # (N, 1) what those with the first lack besides
    row_length: Tensor  # (N, 1) |t|^2 - 1
    column_length: Tensor  # (M,) |w_1|^2 - 1: rounding, or -1 where the first vector is missing

    @classmethod
    def of(cls, anchor: Tensor, centre: Tensor, bases: Tensor, shift: Tensor, excess: Tensor) -> Centred:
        """See `mmpt.ops.gram.centred_tuples` for the last three."""
        items = anchor - centre
        length = gram.length_excess(anchor)[:, None]
        row_shift = (length - items.square().sum(1, keepdim=True)) / 2
        return cls(items, bases, centre, shift, row_shift, length, excess)

    def of_anchor(self, block: slice, products: Tensor, first: Tensor, length: Tensor) -> Tensor:
        """Gradient (C, D) of a block of anchors.

        Args:
            products: (C, D) weights of the products with the bases, times these.
            first: (C, 1) sum of the weights of the first.
            length: (C, 1) sum of the weights of |t|^2 / 2.
        """
        gradient = torch.addcmul(-products, self.items[block], length)
        return gradient.addcmul_(first - length, self.centre, value=-1)


def _kernels() -> ModuleType:
    from mmpt.ops.gram import _triton  # optional, and slow to import

    return _triton


def _sums(
    given: Sequence[Tensor], layout: _Layout, options: _Options, kept: list[Tensor]
) -> tuple[Tensor, ...]:
    """Log-sum-exps and weighted means of rows and of columns, and the logits of matched pairs; `kept` gets
    dot products that backward need not compute again."""
    vectors, log_own, pair_distance, scale = given
    row_lse, row_mean = torch.empty_like(layout.row_share), torch.empty_like(layout.row_share)
    column_lse, column_mean = torch.full_like(log_own, -torch.inf), torch.zeros_like(log_own)
    pair_logit = torch.empty_like(pair_distance)
    for block in _blocks(vectors.items, options):
        inside, rows, columns = pairs = _pairs_in(block, layout)
        along, squared = _distances(vectors, block, pair_distance, pairs)
        logits = gram.score_of(squared, log_own, options.power, options.score).mul_(-scale)
        row_lse[block] = _biased(logits, layout.column_bias).logsumexp(1)
        row_mean[block] = logits @ layout.column_share
        column_lse = torch.logaddexp(column_lse, _biased(logits, layout.row_bias, block).logsumexp(0))
        column_mean += layout.row_share[block] @ logits
        pair_logit[inside] = logits[rows, columns]
        kept += [along] if vectors.shift.numel() * len(vectors.items) <= KEEP_NUMBERS else []
    return row_lse, row_mean, column_lse, column_mean, pair_logit


def _gradients(
    given: Sequence[Tensor], softmaxes: _Softmaxes, layout: _Layout, options: _Options, kept: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Gradients of anchor, bases, shift, log_own, pair_distance and scale."""
    vectors, log_own, pair_distance, scale = given
    flat = vectors.bases.flatten(0, 1)  # (K * M, D)
    grad_anchor, grad_bases = torch.empty_like(vectors.items), torch.zeros_like(vectors.bases)
    grad_shift, grad_log_own, grad_pair, grad_scale = (
        torch.zeros_like(x) for x in (vectors.shift, log_own, pair_distance, scale)
    )
    for number, block in enumerate(_blocks(vectors.items, options)):
        inside, rows, columns = pairs = _pairs_in(block, layout)
        along, squared = _distances(vectors, block, pair_distance, pairs, kept[number] if kept else None)
        energy = gram.score_of(squared, log_own, options.power, options.score)
        gradient = softmaxes.gradient(energy * -scale, block, pairs)
        grad_scale -= torch.dot(gradient.flatten(), energy.flatten())
        gradient.mul_(-scale)  # dL/dE from here
        if options.score != "logvolume":
            gradient.mul_(energy)
        if options.power is not None:
            gradient.mul_(options.power)  # H from here
        grad_log_own += gradient.sum(0)
        grad_pair[inside] = gradient[rows, columns] / pair_distance[inside]
        gradient.div_(squared).masked_fill_(squared <= _floor(vectors.row_length[block]), 0.0)
        gradient[rows, columns] = 0.0  # pairs have their gradient from the explicit residual
        weights = along * gradient[:, None]  # (C, K, M)
        weights[:, 0].addcmul_(gradient, 1 + vectors.column_length)
        grad_anchor[block] = vectors.of_anchor(
            block,
            product(weights.flatten(1), flat.T),
            weights[:, 0].sum(1, keepdim=True),
            gradient.sum(1, keepdim=True),
        )
        grad_shift -= weights.sum(0)
        for grad, share in zip(grad_bases, weights.unbind(1), strict=True):
            grad -= product(share.T, vectors.items[block].T)
    return grad_anchor, grad_bases, grad_shift, grad_log_own, grad_pair, grad_scale


class _Softmaxes(NamedTuple):
    """Gradient of both cross entropies with respect to a block of logits."""

    row_lse: Tensor
    column_lse: Tensor
    grad_a2d: Tensor
    grad_d2a: Tensor
    layout: _Layout
    label_smoothing: float

    def offsets(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weights of rows (N,) and columns (M,), and what to take off logits for softmaxes with them."""
        layout = self.layout
        row_weight, column_weight = torch.zeros_like(self.row_lse), torch.zeros_like(self.column_lse)
        row_weight[layout.row_span], column_weight[layout.column_span] = layout.pair_share, layout.pair_share
        # A weight of zero becomes an offset of +inf: its softmax vanishes, whatever the logits.
        row_offset = (self.row_lse - row_weight.log()).where(row_weight > 0, torch.inf)
        column_offset = (self.column_lse - column_weight.log()).where(column_weight > 0, torch.inf)
        return row_weight, column_weight, row_offset, column_offset

    def gradient(self, logits: Tensor, block: slice, pairs: tuple[slice, Tensor, Tensor]) -> Tensor:
        layout, (inside, rows, columns) = self.layout, pairs
        row_weight, column_weight, row_offset, column_offset = self.offsets()
        row_weight, row_offset = row_weight[block], row_offset[block]
        gradient = (_biased(logits, layout.column_bias) - row_offset[:, None]).exp_().mul_(self.grad_a2d)
        gradient += (_biased(logits, layout.row_bias, block) - column_offset).exp_().mul_(self.grad_d2a)
        gradient.addr_(self.grad_a2d * row_weight, layout.column_share, alpha=-self.label_smoothing)
        gradient.addr_(layout.row_share[block], self.grad_d2a * column_weight, alpha=-self.label_smoothing)
        gradient[rows, columns] -= (
            (1 - self.label_smoothing) * (self.grad_a2d + self.grad_d2a) * layout.pair_share[inside]
        )
        return gradient


def _blocks(anchor: Tensor, options: _Options) -> Iterator[slice]:
    step = options.block_rows
    return (slice(start, min(start + step, len(anchor))) for start in range(0, len(anchor), step))


def _pairs_in(block: slice, layout: _Layout) -> tuple[slice, Tensor, Tensor]:
    """Matched pairs of a block: their slice among all pairs, their rows within the block, their columns."""
    first, last = max(block.start, layout.row_span.start), min(block.stop, layout.row_span.stop)
    inside = slice(first - layout.row_span.start, max(first, last) - layout.row_span.start)
    number = torch.arange(inside.start, inside.stop, device=layout.pair_share.device)
    return inside, number + (layout.row_span.start - block.start), number + layout.column_span.start


def _floor(row_length: Tensor) -> Tensor:
    """Least squared distance (C, 1) that a subtraction can tell from zero."""
    least = torch.finfo(row_length.dtype).tiny
    return ((1 + row_length) * gram.square_floor(row_length.dtype)).clamp_min(least)


def _distances(
    vectors: Centred, block: slice, pair_distance: Tensor, pairs, along: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Products (C, K, M) q, P_2, .. of a block of anchors, and squared distances (C, M) from all spans."""
    inside, rows, columns = pairs
    if along is None:
        along = product(vectors.items[block], vectors.bases.flatten(0, 1), bias=vectors.shift.flatten())
        along = along.unflatten(1, vectors.shift.shape)
        along[:, 0] += vectors.row_shift[block]
    squared = torch.sub(vectors.row_length[block] - vectors.column_length, along[:, 0], alpha=2)
    for k in range(along.shape[1]):  # one pass each, no (C, K, M) temporary
        squared = torch.addcmul(squared, along[:, k], along[:, k], value=-1)
    torch.maximum(squared, _floor(vectors.row_length[block]), out=squared)
    squared[rows, columns] = pair_distance[inside].square()
    return along, squared


def _biased(logits: Tensor, bias: Tensor | None, block: slice | None = None) -> Tensor:
    if bias is None:
        return logits
    return logits + (bias if block is None else bias[block])
