"""Contrast over Gramian volumes as Triton kernels (optional: needs triton, and a GPU or its interpreter).

The problem and the letters are those of `mmpt.ops.gram.contrast`: N anchors, M tuples, K modalities, D width.
One program computes a tile of the N x M matrix from the vectors: products with the K directions, distances,
logits. Forward keeps sums over rows and columns of a tile. Backward computes each tile again and writes
the weights of the directions to a scratch matrix, a chunk of anchors at a time, which two matrix products
then spread over the vectors. Every number has one writer, so that results are bitwise repeatable.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from mmpt.ops.gram.contrast import Centred
from mmpt.ops.precision import product

NOTHING = tl.constexpr(-float("inf"))
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
TILE = 128, 64  # anchors and tuples; larger ones do not fit the registers
SCRATCH = 2**24  # numbers of the scratch matrix: 64 MiB
WITHOUT_LOGARITHM, LOGARITHM, POWER = range(3)  # how a score follows from a squared distance


@triton.jit
def _squared_distances(
    items, bases, shift, row_shift, row_length, column_length, scratch, row, column, n_anchors, n_tuples,
    width, n_bases, scratch_row,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, STEP: tl.constexpr, HOW: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """(ROWS, COLUMNS) squared distances of anchors from the spans of tuples, and the least that a subtraction
    can tell from zero (ROWS, 1); with KEEP the products of each direction go to the scratch matrix.

    Vectors are those of `mmpt.ops.gram.contrast.Centred`.
    """
    along = tl.arange(0, STEP)
    row_there, column_there = (row < n_anchors)[:, None], (column < n_tuples)[None, :]
    x_at = items + row[:, None].to(tl.int64) * width + along[None, :]
    length = tl.load(row_length + row, mask=row < n_anchors, other=0.0)[:, None]
    of_row = tl.load(row_shift + row, mask=row < n_anchors, other=0.0)[:, None]
    of_first = tl.load(column_length + column, mask=column < n_tuples, other=0.0)[None, :]
    squared = length - of_first
    for k in range(n_bases):
        y_at = bases + (k * n_tuples + column[None, :].to(tl.int64)) * width + along[:, None]
        total = tl.zeros((ROWS, COLUMNS), tl.float32)
        for at in range(0, width, STEP):
            inside = at + along < width
            x = tl.load(x_at + at, mask=row_there & inside[None, :], other=0.0)
            y = tl.load(y_at + at, mask=column_there & inside[:, None], other=0.0)
            total = tl.dot(x, y, total, input_precision=HOW)
        from_tip = tl.where(k == 0, 1.0, 0.0)  # the first product is that of t - w_1
        of_column = tl.load(shift + k * n_tuples + column, mask=column < n_tuples, other=0.0)[None, :]
        total += of_column + from_tip * of_row
        squared -= total * (total + 2 * from_tip)
        if KEEP:
            out = scratch + (scratch_row[:, None].to(tl.int64) * n_bases + k) * n_tuples + column[None, :]
            tl.store(out, total + from_tip * (1 + of_first), mask=row_there & column_there)
    return squared, tl.maximum((1 + length) * 1e-6, 1.1754943508222875e-38)


@triton.jit
def _energies(
    squared, least, own, power, pair_distance, row, column, n_tuples, first_row, first_column, n_pairs,
    SCORE: tl.constexpr,
):  # fmt: skip
    """Scores, squared distances, which entries are matched pairs, and their number by row (ROWS, 1).

    A matched pair has its distance from the residual, which a subtraction would lose.
    """
    pair = (row - first_row)[:, None]
    matched = (pair >= 0) & (pair < n_pairs) & (column[None, :] - first_column == pair)
    distance = tl.load(pair_distance + pair, mask=(pair >= 0) & (pair < n_pairs), other=1.0)
    squared = tl.where(matched, distance * distance, tl.maximum(squared, least))
    there = (column < n_tuples)[None, :]
    volume = tl.load(own + column[None, :], mask=there, other=0.0)
    if SCORE == 0:
        energy = tl.sqrt(squared) * volume
    else:
        energy = (volume + 0.5 * tl.log(squared)) * tl.load(power + column[None, :], mask=there, other=0.0)
        if SCORE == 2:
            energy = tl.exp(energy)
    return energy, squared, matched, pair


@triton.jit
def _log_sum_exp(x, AXIS: tl.constexpr):
    highest = tl.max(x, AXIS, keep_dims=True)
    finite = tl.where(highest == NOTHING, 0.0, highest)
    return tl.reshape(finite + tl.log(tl.sum(tl.exp(x - finite), AXIS, keep_dims=True)), (x.shape[1 - AXIS],))


@triton.jit
def _sums(
    items, bases, shift, row_shift, row_length, column_length, own, power, pair_distance, scale,
    row_bias, column_bias, row_share, column_share, row_lse, row_mean, column_lse, column_mean, pair_logit,
    n_anchors, n_tuples, width, n_bases, first_row, first_column, n_pairs,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, STEP: tl.constexpr, HOW: tl.constexpr, SCORE: tl.constexpr,
):  # fmt: skip
    """Log-sum-exps and weighted means of the logits of a tile, by row and by column."""
    i, j = tl.program_id(0), tl.program_id(1)
    row, column = i * ROWS + tl.arange(0, ROWS), j * COLUMNS + tl.arange(0, COLUMNS)
    squared, least = _squared_distances(
        items, bases, shift, row_shift, row_length, column_length, items, row, column, n_anchors, n_tuples,
        width, n_bases, row,
        ROWS, COLUMNS, STEP, HOW, False,
    )  # fmt: skip
    energy, squared, matched, pair = _energies(
        squared, least, own, power, pair_distance, row, column, n_tuples, first_row, first_column, n_pairs,
        SCORE,
    )  # fmt: skip
    logit = -tl.load(scale) * energy
    there = (row < n_anchors)[:, None] & (column < n_tuples)[None, :]
    pair_at = pair_logit + pair + tl.zeros((1, COLUMNS), tl.int32)
    tl.store(pair_at, logit, mask=matched & there)
    row_weight = tl.load(row_share + row, mask=row < n_anchors, other=0.0)
    column_weight = tl.load(column_share + column, mask=column < n_tuples, other=0.0)
    shown = tl.where(there, logit, 0.0)
    at = j.to(tl.int64) * n_anchors + row
    tl.store(row_mean + at, tl.sum(shown * column_weight[None, :], 1), mask=row < n_anchors)
    bias = tl.load(column_bias + column, mask=column < n_tuples, other=NOTHING)
    biased = tl.where(there, logit, NOTHING) + bias[None, :]
    tl.store(row_lse + at, _log_sum_exp(biased, 1), mask=row < n_anchors)
    at = i.to(tl.int64) * n_tuples + column
    tl.store(column_mean + at, tl.sum(shown * row_weight[:, None], 0), mask=column < n_tuples)
    bias = tl.load(row_bias + row, mask=row < n_anchors, other=NOTHING)
    biased = tl.where(there, logit, NOTHING) + bias[:, None]
    tl.store(column_lse + at, _log_sum_exp(biased, 0), mask=column < n_tuples)


@triton.jit
def _gradients(
    items, bases, shift, row_shift, row_length, column_length, own, power, pair_distance, scale,
    row_offset, column_offset, row_bias, column_bias, row_grad, column_grad, row_mean_grad, column_mean_grad,
    row_share, column_share, pair_grad,
    scratch, grad_own, grad_pair, grad_scale, grad_length, n_anchors, n_tuples, width, n_bases, first_row,
    first_column, n_pairs, first_block,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, STEP: tl.constexpr, HOW: tl.constexpr, SCORE: tl.constexpr,
    SCALED: tl.constexpr,
):  # fmt: skip
    """Gradients of a tile of a chunk of anchors that begins with block `first_block`.

    Sums of it go to `grad_own` (by column), `grad_scale` (in all), `grad_length` (by row); the scratch matrix
    gets the products with the directions, each times what its pair passes on.
    """
    j = tl.program_id(1)
    i = first_block + tl.program_id(0)
    local = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row, column = i * ROWS + tl.arange(0, ROWS), j * COLUMNS + tl.arange(0, COLUMNS)
    squared, least = _squared_distances(
        items, bases, shift, row_shift, row_length, column_length, scratch, row, column, n_anchors, n_tuples,
        width, n_bases, local,
        ROWS, COLUMNS, STEP, HOW, True,
    )  # fmt: skip
    energy, squared, matched, pair = _energies(
        squared, least, own, power, pair_distance, row, column, n_tuples, first_row, first_column, n_pairs,
        SCORE,
    )  # fmt: skip
    factor = -tl.load(scale)
    logit = factor * energy
    row_there, column_there = row < n_anchors, column < n_tuples
    there = row_there[:, None] & column_there[None, :]
    over_row = tl.load(row_offset + row, mask=row_there, other=float("inf"))[:, None]
    bias = tl.load(column_bias + column, mask=column_there, other=NOTHING)[None, :]
    gradient = tl.exp(logit + bias - over_row) * tl.load(row_grad)
    over_column = tl.load(column_offset + column, mask=column_there, other=float("inf"))[None, :]
    bias = tl.load(row_bias + row, mask=row_there, other=NOTHING)[:, None]
    gradient += tl.exp(logit + bias - over_column) * tl.load(column_grad)
    gradient -= (
        tl.load(row_mean_grad + row, mask=row_there, other=0.0)[:, None]
        * tl.load(column_share + column, mask=column_there, other=0.0)[None, :]
    )
    gradient -= (
        tl.load(row_share + row, mask=row_there, other=0.0)[:, None]
        * tl.load(column_mean_grad + column, mask=column_there, other=0.0)[None, :]
    )
    held = (pair >= 0) & (pair < n_pairs)
    gradient -= tl.where(matched, tl.load(pair_grad + pair, mask=held, other=0.0), 0.0)
    gradient = tl.where(there, gradient, 0.0)
    tl.store(
        grad_scale + i * tl.num_programs(1) + j,
        -tl.sum(tl.sum(gradient * tl.where(there, energy, 0.0), 1), 0),
    )
    gradient *= factor
    if SCORE != 1:
        gradient *= energy
    if SCALED:
        gradient *= tl.load(power + column, mask=column_there, other=0.0)[None, :]
    gradient = tl.where(there, gradient, 0.0)
    at = i.to(tl.int64) * n_tuples + column
    tl.store(grad_own + at, tl.sum(gradient, 0), mask=column_there)
    distance = tl.load(pair_distance + pair, mask=held, other=1.0)
    pair_at = grad_pair + pair + tl.zeros((1, COLUMNS), tl.int32)
    tl.store(pair_at, gradient / distance, mask=matched & there)
    gradient = tl.where(matched | (squared <= least), 0.0, gradient / squared)
    tl.store(grad_length + j.to(tl.int64) * n_anchors + row, tl.sum(gradient, 1), mask=row_there)
    tl.debug_barrier()  # the products were written by other threads of this program
    for k in range(n_bases):
        out = scratch + (local[:, None].to(tl.int64) * n_bases + k) * n_tuples + column[None, :]
        tl.store(out, tl.load(out, mask=there, other=0.0) * gradient, mask=there)


class Tiles:
    """The launches of one call: the tile that fits its device, and what every kernel reads."""

    def __init__(self, vectors: Centred, log_own, pair_distance, scale, layout, options):
        items = vectors.items
        n_bases, n_tuples, width = vectors.bases.shape
        self.rows, self.columns = TILE if items.is_cuda or not INTERPRETED else (16, 16)
        self.grid = triton.cdiv(len(items), self.rows), triton.cdiv(n_tuples, self.columns)
        zeros = items.new_zeros(())  # stands for what a score does not read
        own = log_own.exp() if options.power is None else log_own
        power = zeros if options.power is None else options.power.to(items.dtype).contiguous()
        logarithmic = LOGARITHM if options.score == "logvolume" else POWER
        score = WITHOUT_LOGARITHM if options.power is None else logarithmic
        places = (
            vectors.items,
            vectors.bases,
            vectors.shift,
            vectors.row_shift,
            vectors.row_length,
            vectors.column_length,
        )
        self.read = *(x.contiguous() for x in (*places, own)), power, pair_distance.contiguous(), scale
        self.row_bias = (
            torch.zeros_like(layout.row_share) if layout.row_bias is None else layout.row_bias.flatten()
        )
        self.column_bias = (
            torch.zeros_like(layout.column_share) if layout.column_bias is None else layout.column_bias
        )
        places = layout.row_span.start, layout.column_span.start, len(pair_distance)
        self.sizes = (len(items), n_tuples, width, n_bases, *places)
        self.options: dict[str, Any] = {
            **{"ROWS": self.rows, "COLUMNS": self.columns, "STEP": 16, "HOW": "tf32x3", "SCORE": score},
            **{"num_warps": 8, "num_stages": 3},
        }


def sums(given, layout, options) -> tuple[Tensor, ...]:
    """As `mmpt.ops.gram.contrast._sums`, for float32."""
    vectors, log_own, pair_distance, scale = given
    tiles = Tiles(vectors, log_own, pair_distance, scale, layout, options)
    by_row = log_own.new_empty(2, tiles.grid[1], len(vectors.items))
    by_column = log_own.new_empty(2, tiles.grid[0], len(log_own))
    pair_logit = torch.empty_like(pair_distance)
    _sums[tiles.grid](
        *tiles.read, tiles.row_bias, tiles.column_bias, layout.row_share, layout.column_share,
        *by_row, *by_column, pair_logit, *tiles.sizes, **tiles.options,
    )  # fmt: skip
    return (
        by_row[0].logsumexp(0),
        by_row[1].sum(0),
        by_column[0].logsumexp(0),
        by_column[1].sum(0),
        pair_logit,
    )


def gradients(given, softmaxes, layout, options) -> tuple[Tensor, ...]:
    """As `mmpt.ops.gram.contrast._gradients`, for float32."""
    vectors, log_own, pair_distance, scale = given
    tiles = Tiles(vectors, log_own, pair_distance, scale, layout, options)
    items, bases = vectors.items, vectors.bases
    n_bases, n_tuples, _ = bases.shape
    row_weight, column_weight, row_offset, column_offset = softmaxes.offsets()
    smoothing, a2d, d2a = softmaxes.label_smoothing, softmaxes.grad_a2d, softmaxes.grad_d2a
    given = (
        row_offset, column_offset, tiles.row_bias, tiles.column_bias, a2d, d2a,
        smoothing * a2d * row_weight, smoothing * d2a * column_weight, layout.row_share, layout.column_share,
        (1 - smoothing) * (a2d + d2a) * layout.pair_share,
    )  # fmt: skip
    grad_own = items.new_empty(tiles.grid[0], n_tuples)
    grad_scale, grad_length = items.new_empty(tiles.grid), items.new_empty(tiles.grid[1], len(items))
    grad_pair, grad_shift = torch.empty_like(pair_distance), torch.zeros_like(vectors.shift)
    grad_anchor, grad_bases = torch.empty_like(items), torch.zeros_like(bases)
    blocks = max(1, SCRATCH // (n_bases * n_tuples * tiles.rows))
    scratch = items.new_empty(min(blocks * tiles.rows, len(items)), n_bases, n_tuples)
    for first in range(0, tiles.grid[0], blocks):
        block = slice(first * tiles.rows, min((first + blocks) * tiles.rows, len(items)))
        _gradients[min(blocks, tiles.grid[0] - first), tiles.grid[1]](
            *tiles.read, *given, scratch, grad_own, grad_pair, grad_scale, grad_length, *tiles.sizes, first,
            SCALED=options.power is not None, **tiles.options,
        )  # fmt: skip
        weights = scratch[: block.stop - block.start]
        grad_anchor[block] = vectors.of_anchor(
            block,
            product(weights.flatten(1), bases.flatten(0, 1).T),
            weights[:, 0].sum(1, keepdim=True),
            grad_length[:, block].sum(0)[:, None],
        )
        grad_shift -= weights.sum(0)
        for grad, share in zip(grad_bases, weights.unbind(1), strict=True):
            grad -= product(share.T, items[block].T)
    return grad_anchor, grad_bases, grad_shift, grad_own.sum(0), grad_pair, grad_scale.sum()
