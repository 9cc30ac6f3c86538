"""Late interaction as Triton kernels (optional: needs triton, and a GPU or its interpreter).

Legend: A texts of T tokens, B videos of F tokens, D width; x is the side of the texts, y that of the videos.

Valid tokens of consecutive clips are packed into blocks of slots, a clip never in two blocks: padding costs
nothing, and every sum over the tokens of a clip stays within a tile. A tile is a block of x times a block of
y: product, exp and both segmented sums in one pass. Backward computes each tile again, writes the gradient of
its cosines to a scratch matrix, a chunk of tiles at a time, and multiplies that with the tokens. Every number
has one writer, so that results are bitwise repeatable; nothing waits for the device.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmpt.ops.late_interaction._packing import FACTORS, SCRATCH_TOP, Packing, Tile, pack, tile_of

PART = tl.constexpr(
    tl.float32 if os.environ.get("TRITON_INTERPRET") == "1" else tl.bfloat16
)  # numpy has none
WIDTH_STEP = 64  # the width of packed tokens is a multiple of it


@triton.jit
def _unit_tokens(tokens, token, units, width, padded_width, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Tokens of unit length in the dtype of `units`, zero rows where a slot is empty."""
    slot = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    source = tl.load(token + slot)
    unit, _ = _unit(tokens, source, width, WIDTH)
    column = tl.arange(0, WIDTH)[None, :]
    at = slot[:, None].to(tl.int64) * padded_width + column
    tl.store(units + at, unit.to(units.dtype.element_ty), mask=column < padded_width)


@triton.jit
def _unit(tokens, source, width, WIDTH: tl.constexpr):
    """Rows `source` of the tokens at unit length, and inverse norms: 0 for zero vectors and source -1."""
    column = tl.arange(0, WIDTH)[None, :]
    inside = (source >= 0)[:, None] & (column < width)
    x = tl.load(tokens + source[:, None].to(tl.int64) * width + column, mask=inside, other=0.0).to(tl.float32)
    square = tl.sum(x * x, 1)
    inverse = tl.where(square > 1.2e-38, 1.0 / tl.sqrt(tl.maximum(square, 1.2e-38)), 0.0)
    return x * inverse[:, None], inverse


@triton.jit
def _token_gradient(
    tokens, token, grad_units, grad_tokens, width, padded_width, ROWS: tl.constexpr, WIDTH: tl.constexpr
):
    """Gradients of the tokens from those of their unit vectors: (g - u (u.g)) / norm."""
    slot = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    source = tl.load(token + slot)
    unit, inverse = _unit(tokens, source, width, WIDTH)
    column = tl.arange(0, WIDTH)[None, :]
    inside = (source >= 0)[:, None] & (column < width)
    grad = tl.load(grad_units + slot[:, None].to(tl.int64) * padded_width + column, mask=inside, other=0.0)
    grad = (grad - unit * tl.sum(unit * grad, 1)[:, None]) * inverse[:, None]
    at = source[:, None].to(tl.int64) * width + column
    tl.store(grad_tokens + at, grad.to(grad_tokens.dtype.element_ty), mask=inside)


@triton.jit
def _parts(x, PARTS: tl.constexpr):
    """x as a sum of parts that bfloat16 holds, so that their products with 0 and 1 are exact.

    Three parts of 8 bits are all of x; two are x to 17 bits.
    """
    high = _leading(x)
    if PARTS == 2:
        parts = high.to(PART), (x - high).to(PART)
    else:
        middle = _leading(x - high)
        parts = high.to(PART), middle.to(PART), (x - high - middle).to(PART)
    return parts


@triton.jit
def _sums(parts, member, total, PARTS: tl.constexpr, AXIS: tl.constexpr):
    """Adds to the total the sums of x, in parts, over the slots of each clip: along axis AXIS."""
    for part in tl.static_range(PARTS):
        x = parts[PARTS - 1 - part]
        total = tl.dot(x if AXIS == 1 else tl.trans(x), member.to(PART), total)
    return total


@triton.jit
def _leading(x):
    """x without all but its first 8 digits, as bfloat16 holds them."""
    return (x.to(tl.int32, bitcast=True) & -65536).to(tl.float32, bitcast=True)


@triton.jit
def _cosines(x, y, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr, STEP: tl.constexpr, HOW: tl.constexpr):
    """Products (ROWS, COLUMNS) of rows of x with rows of y."""
    along = tl.arange(0, STEP)
    x_at = x + tl.arange(0, ROWS)[:, None] * width + along[None, :]
    y_at = y + tl.arange(0, COLUMNS)[None, :] * width + along[:, None]
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for at in range(0, width, STEP):
        total = tl.dot(tl.load(x_at + at), tl.load(y_at + at), total, input_precision=HOW)
    return total


@triton.jit
def _swizzled(tile, rows, columns):
    """Row and column of a tile, in groups of 8 rows, so that tiles that run together share their tokens."""
    group = tile // (8 * columns)
    height = tl.minimum(rows - group * 8, 8)
    return group * 8 + (tile % (8 * columns)) % height, (tile % (8 * columns)) // height


@triton.jit
def _members(clip, first, block, SLOTS: tl.constexpr, CLIPS: tl.constexpr):
    """Place of each slot's clip in its block; the clips of the block; which are there; 0/1 (SLOTS, CLIPS)."""
    begin = tl.load(first + block)
    place = tl.load(clip + block * SLOTS + tl.arange(0, SLOTS)) - begin
    number = begin + tl.arange(0, CLIPS)
    member = tl.where(place[:, None] == tl.arange(0, CLIPS)[None, :], 1.0, 0.0)
    return place, number, number < tl.load(first + block + 1), member


@triton.jit
def _highest(cosines, place, SLOTS: tl.constexpr, CLIPS: tl.constexpr):
    """Largest cosine of each row with the columns of each clip (SLOTS, CLIPS)."""
    highest = tl.full((SLOTS, CLIPS), -4.0, tl.float32)  # below every cosine
    for clip in range(CLIPS):
        most = tl.max(tl.where(place[None, :] == clip, cosines, -4.0), 1)
        highest = tl.where(tl.arange(0, CLIPS)[None, :] == clip, most[:, None], highest)
    return highest


@triton.jit
def _similarities(
    x, y, x_clip, y_clip, x_first, y_first, x_used, y_used, x_length, y_length, to_video, to_text,
    first_row, n_videos, x_blocks, y_blocks, width, alpha,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, TEXTS: tl.constexpr, VIDEOS: tl.constexpr, STEP: tl.constexpr,
    HOW: tl.constexpr, HARD: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Both similarities of all pairs of a tile; x begins with the block `first_row`."""
    row, j = _swizzled(tl.program_id(0), x_blocks, y_blocks)
    i = first_row + row
    if (i < tl.load(x_used)) & (j < tl.load(y_used)):
        x_block = x + row.to(tl.int64) * ROWS * width
        y_block = y + j.to(tl.int64) * COLUMNS * width
        cosines = _cosines(x_block, y_block, width, ROWS, COLUMNS, STEP, HOW)
        x_place, text, text_here, x_member = _members(x_clip, x_first, i, ROWS, TEXTS)
        y_place, video, video_here, y_member = _members(y_clip, y_first, j, COLUMNS, VIDEOS)
        if HARD:
            over_video = _highest(cosines, y_place, ROWS, VIDEOS)
            over_text = _highest(tl.trans(cosines), x_place, COLUMNS, TEXTS)
        else:
            e = tl.exp2(cosines * (1.4426950408889634 / alpha))
            over_video, over_text = _both_sums(e, x_member, y_member, PARTS)
            over_video = 0.6931471805599453 * alpha * tl.log2(tl.maximum(over_video, 1.2e-38))
            over_text = 0.6931471805599453 * alpha * tl.log2(tl.maximum(over_text, 1.2e-38))
        n_words = tl.load(x_length + text, mask=text_here, other=0)
        n_frames = tl.load(y_length + video, mask=video_here, other=0)
        at = text[:, None].to(tl.int64) * n_videos + video[None, :]
        here = text_here[:, None] & video_here[None, :]
        filled = (n_words > 0)[:, None] & (n_frames > 0)[None, :]
        mean = _means(over_video, x_member, n_words, TEXTS, VIDEOS)
        tl.store(to_video + at, tl.where(filled, mean, 0.0), mask=here)
        mean = tl.trans(_means(over_text, y_member, n_frames, VIDEOS, TEXTS))
        tl.store(to_text + at, tl.where(filled, mean, 0.0), mask=here)


@triton.jit
def _both_sums(e, x_member, y_member, PARTS: tl.constexpr):
    """Sums of e over the slots of each video (ROWS, VIDEOS) and of each text (COLUMNS, TEXTS)."""
    parts = _parts(e, PARTS)
    over_video = tl.zeros((e.shape[0], y_member.shape[1]), tl.float32)
    over_text = tl.zeros((e.shape[1], x_member.shape[1]), tl.float32)
    return _sums(parts, y_member, over_video, PARTS, 1), _sums(parts, x_member, over_text, PARTS, 0)


@triton.jit
def _means(x, member, length, OWN: tl.constexpr, OTHER: tl.constexpr):
    """Means (OWN, OTHER) of x (slots, OTHER) over the slots of each clip."""
    total = tl.zeros((OWN, OTHER), tl.float32)
    member = tl.trans(member).to(PART)
    parts = _parts(x, 3)
    for part in tl.static_range(3):
        total = tl.dot(member, parts[2 - part], total)
    return total / tl.maximum(length, 1)[:, None]


@triton.jit
def _cosine_gradients(
    x, y, x_clip, y_clip, x_first, y_first, x_used, y_used, x_length, y_length, to_video, to_text,
    scratch, scratch_width, first_row, first_column, n_videos, x_blocks, y_blocks, width, alpha, scale,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, TEXTS: tl.constexpr, VIDEOS: tl.constexpr, STEP: tl.constexpr,
    HOW: tl.constexpr, HARD: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Gradients of the cosines of a tile, times `scale`, from those of both similarities."""
    row, column = _swizzled(tl.program_id(0), x_blocks, y_blocks)
    i, j = first_row + row, first_column + column
    if (i < tl.load(x_used)) & (j < tl.load(y_used)):
        x_block = x + row.to(tl.int64) * ROWS * width
        y_block = y + j.to(tl.int64) * COLUMNS * width
        cosines = _cosines(x_block, y_block, width, ROWS, COLUMNS, STEP, HOW)
        x_place, text, text_here, x_member = _members(x_clip, x_first, i, ROWS, TEXTS)
        y_place, video, video_here, y_member = _members(y_clip, y_first, j, COLUMNS, VIDEOS)
        if HARD:
            grad = _passed(to_video, n_videos, 1, x_clip, x_length, i, video, video_here, scale, ROWS)
            gradient = _to_highest(cosines, y_place, grad, VIDEOS)
            grad = _passed(to_text, 1, n_videos, y_clip, y_length, j, text, text_here, scale, COLUMNS)
            gradient += tl.trans(_to_highest(tl.trans(cosines), x_place, grad, TEXTS))
        else:
            e = tl.exp2(cosines * (1.4426950408889634 / alpha))
            over_video, over_text = _both_sums(e, x_member, y_member, PARTS)
            grad = _passed(to_video, n_videos, 1, x_clip, x_length, i, video, video_here, scale, ROWS)
            parts = _parts(_share(grad, over_video), PARTS)
            gradient = _sums(parts, tl.trans(y_member), tl.zeros((ROWS, COLUMNS), tl.float32), PARTS, 1)
            grad = _passed(to_text, 1, n_videos, y_clip, y_length, j, text, text_here, scale, COLUMNS)
            parts, member = _parts(_share(grad, over_text), PARTS), x_member.to(PART)
            for part in tl.static_range(PARTS):
                gradient = tl.dot(member, tl.trans(parts[PARTS - 1 - part]), gradient)
            gradient *= e
        out = scratch + row.to(tl.int64) * ROWS * scratch_width + column * COLUMNS
        out += tl.arange(0, ROWS)[:, None] * scratch_width + tl.arange(0, COLUMNS)[None, :]
        tl.store(out, gradient.to(scratch.dtype.element_ty))


@triton.jit
def _passed(grad, own_step, other_step, clip, length, block, other, other_here, scale, SLOTS: tl.constexpr):
    """What each slot of a block gets from its clip's similarity to each of the other clips, times `scale`."""
    own = tl.load(clip + block * SLOTS + tl.arange(0, SLOTS))
    share = tl.load(scale) / tl.load(length + own, mask=own >= 0, other=1)
    at = own[:, None].to(tl.int64) * own_step + other[None, :].to(tl.int64) * other_step
    passed = tl.load(grad + at, mask=(own >= 0)[:, None] & other_here[None, :], other=0.0)
    return passed * share[:, None]


@triton.jit
def _share(gradient, total):
    """gradient / total, 0 for clips without tokens."""
    return tl.where(total > 0, gradient / tl.where(total > 0, total, 1.0), 0.0)


@triton.jit
def _to_highest(cosines, place, grad, CLIPS: tl.constexpr):
    """Hands what each row passes to a clip to the columns of the clip that are highest, in equal parts."""
    gradient = tl.zeros_like(cosines)
    for clip in range(CLIPS):
        mine = place[None, :] == clip
        passed = tl.sum(tl.where(tl.arange(0, CLIPS)[None, :] == clip, grad, 0.0), 1)
        most = tl.max(tl.where(mine, cosines, -4.0), 1)
        hit = tl.where(mine & (cosines == most[:, None]), 1.0, 0.0)
        gradient += hit * (passed / tl.maximum(tl.sum(hit, 1), 1.0))[:, None]
    return gradient


@triton.jit
def _accumulate(
    a, b, out, a_row, a_column, width, out_used, in_used, out_first, in_first, out_most, in_most, scale,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, STEP: tl.constexpr, OUT_SLOTS: tl.constexpr,
    IN_SLOTS: tl.constexpr, HOW: tl.constexpr,
):  # fmt: skip
    """out += a @ b / scale for the slots in use: a (out slots, in slots) by strides, b (in slots, width)."""
    n_out = tl.minimum(tl.load(out_used) - out_first, out_most) * OUT_SLOTS
    n_in = tl.minimum(tl.load(in_used) - in_first, in_most) * IN_SLOTS
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    if (tl.program_id(0) * ROWS < n_out) & (n_in > 0):
        along = tl.arange(0, STEP)
        a_at = a + row[:, None].to(tl.int64) * a_row + along[None, :].to(tl.int64) * a_column
        b_at = b + along[:, None].to(tl.int64) * width + column[None, :]
        total = tl.zeros((ROWS, COLUMNS), tl.float32)
        for _ in range(0, n_in, STEP):
            b_tile = tl.load(b_at, mask=column[None, :] < width, other=0.0)
            total = tl.dot(tl.load(a_at), b_tile, total, input_precision=HOW)
            a_at += STEP * a_column
            b_at += STEP * width
        out_at = out + row[:, None].to(tl.int64) * width + column[None, :]
        inside = (row < n_out)[:, None] & (column < width)[None, :]
        tl.store(out_at, tl.load(out_at, mask=inside, other=0.0) + total / tl.load(scale), mask=inside)


def similarities(text, video, text_mask, video_mask, alpha, precision) -> tuple[Tensor, Tensor]:
    """As `mmpt.ops.late_interaction.token_similarity`, without `compat`; the longer clips become the rows."""
    sides = (text, text_mask), (video, video_mask)
    if text.shape[1] >= video.shape[1]:
        return _Similarities.apply(*sides[0], *sides[1], alpha, precision)
    to_text, to_video = _Similarities.apply(*sides[1], *sides[0], alpha, precision)
    return to_video.T, to_text.T


class _Similarities(torch.autograd.Function):
    @staticmethod
    def forward(ctx, text, text_mask, video, video_mask, alpha, precision):
        tile = tile_of(precision, alpha, text.device)
        plans = pack(text_mask, tile.rows, tile.texts), pack(video_mask, tile.columns, tile.videos)
        ctx.save_for_backward(text, video, *plans[0], *plans[1])
        ctx.tile, ctx.alpha, ctx.precision = tile, alpha, precision
        with torch.cuda.device_of(text):
            return _Problem((text, video), plans, tile, alpha, precision).similarities()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_to_video, grad_to_text):
        text, video, *plans = ctx.saved_tensors
        half = len(plans) // 2
        plans = Packing(*plans[:half]), Packing(*plans[half:])
        with torch.cuda.device_of(text):
            problem = _Problem((text, video), plans, ctx.tile, ctx.alpha, ctx.precision)
            grad_text, grad_video = problem.gradients(grad_to_video, grad_to_text)
        return grad_text, None, grad_video, None, None, None


class _Problem:
    """Packed tokens: all of y, and of x a chunk at a time. Backward makes them anew rather than keep them."""

    def __init__(
        self,
        tokens: tuple[Tensor, Tensor],
        plans: tuple[Packing, Packing],
        tile: Tile,
        alpha: float | None,
        precision: str,
    ):
        self.dtype, how = FACTORS[precision]
        self.plans, self.tile = plans, tile
        text, video = self.tokens = tokens[0].contiguous(), tokens[1].contiguous()
        self.width = triton.cdiv(text.shape[-1], WIDTH_STEP) * WIDTH_STEP
        self.y_units = self._units(video, plans[1].token)
        self.options = {"HOW": how, "HARD": not alpha, "PARTS": 3 if self.dtype == torch.float32 else 2}
        self.alpha = alpha or 1.0

    def _rows(self) -> dict[str, int]:
        """How `_unit_tokens` and `_token_gradient` cut the packed tokens: 4096 numbers a program."""
        wide = triton.next_power_of_2(self.width)
        return {"ROWS": max(1, 4096 // wide), "WIDTH": wide, "num_warps": 4 if wide <= 4096 else 16}

    def _units(self, tokens: Tensor, token: Tensor) -> Tensor:
        units = torch.empty(len(token), self.width, dtype=self.dtype, device=tokens.device)
        rows = self._rows()
        _unit_tokens[(len(units) // rows["ROWS"],)](
            tokens, token, units, tokens.shape[-1], self.width, **rows
        )
        return units

    def _x_chunks(self) -> Iterator[tuple[int, int, Tensor, Tensor]]:
        """First block, number of blocks, token of each slot and unit tokens of the chunks of x."""
        slots, x = self.tile.rows, self.plans[0]
        blocks = len(x.first) - 1
        for first in range(0, blocks, self.tile.chunk[0] // slots):
            count = min(self.tile.chunk[0] // slots, blocks - first)
            token = x.token[first * slots : (first + count) * slots]
            yield first, count, token, self._units(self.tokens[0], token)

    def _plan(self) -> list[Tensor]:
        """What both tile kernels read besides the tokens, x before y."""
        x, y = self.plans
        return [x.clip, y.clip, x.first, y.first, x.used, y.used, x.length, y.length]

    def _shape(self) -> dict:
        tile = self.tile
        return {
            **{"ROWS": tile.rows, "COLUMNS": tile.columns, "TEXTS": tile.texts, "VIDEOS": tile.videos},
            **{"STEP": tile.step, "num_warps": tile.warps, "num_stages": tile.stages, **self.options},
        }

    def similarities(self) -> tuple[Tensor, Tensor]:
        x, y = self.plans
        to_video, to_text = (
            torch.empty(len(x.length), len(y.length), device=x.length.device) for _ in range(2)
        )
        columns = len(y.first) - 1
        for first, rows, _, x_units in self._x_chunks():
            _similarities[(rows * columns,)](
                x_units, self.y_units, *self._plan(), to_video, to_text, first, len(y.length), rows, columns,
                self.width, self.alpha, **self._shape(),
            )  # fmt: skip
        return to_video, to_text

    def gradients(self, grad_to_video: Tensor, grad_to_text: Tensor) -> tuple[Tensor, Tensor]:
        (x, y), y_units, tile = self.plans, self.y_units, self.tile
        grads = [grad.float().contiguous() for grad in (grad_to_video, grad_to_text)]
        scale = torch.ones((), device=y_units.device)
        if self.dtype == torch.float16:
            most = torch.stack([grad.abs().amax() for grad in grads]).amax()
            scale = torch.where(most > 0, SCRATCH_TOP / most, 1.0)
        blocks, step = len(y.first) - 1, tile.chunk[1] // tile.columns
        shape = min(tile.chunk[0], len(x.token)), min(step, blocks) * tile.columns
        scratch = torch.empty(shape, dtype=self.dtype, device=scale.device)
        grad_y = torch.zeros(y_units.shape, device=scale.device)
        grad_text, grad_video = (torch.zeros_like(tokens) for tokens in self.tokens)
        for i, rows, token, x_units in self._x_chunks():
            grad_x = torch.zeros(x_units.shape, device=scale.device)
            for j in range(0, blocks, step):
                columns = min(step, blocks - j)
                _cosine_gradients[(rows * columns,)](
                    x_units, y_units, *self._plan(), *grads, scratch, scratch.shape[1], i, j, len(y.length),
                    rows, columns, self.width, self.alpha, scale, **self._shape(),
                )  # fmt: skip
                near = slice(j * tile.columns, (j + columns) * tile.columns)
                bounds = x.used, y.used, i, j, rows, columns
                self._accumulate(scratch, y_units[near], grad_x, bounds, scale)
                self._accumulate(scratch.T, x_units, grad_y[near], _swapped(bounds), scale)
            self._finish(0, token, grad_x, grad_text)
        self._finish(1, y.token, grad_y, grad_video)
        return grad_text, grad_video

    def _accumulate(self, a: Tensor, b: Tensor, out: Tensor, bounds: tuple, scale: Tensor) -> None:
        tile = self.tile
        slots = (tile.rows, tile.columns) if a.stride(1) == 1 else (tile.columns, tile.rows)
        _accumulate[(len(out) // slots[0], triton.cdiv(self.width, tile.width))](
            a, b, out, *a.stride(), self.width, *bounds, scale, ROWS=slots[0], COLUMNS=tile.width,
            STEP=tile.step, OUT_SLOTS=slots[0], IN_SLOTS=slots[1], HOW=self.options["HOW"],
            num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip

    def _finish(self, side: int, token: Tensor, grad_units: Tensor, grad_tokens: Tensor) -> None:
        rows = self._rows()
        _token_gradient[(len(token) // rows["ROWS"],)](
            self.tokens[side], token, grad_units, grad_tokens, grad_tokens.shape[-1], self.width, **rows
        )


def _swapped(pairs: tuple) -> tuple:
    """(a, b, c, d, ..) -> (b, a, d, c, ..)."""
    return tuple(pairs[k ^ 1] for k in range(len(pairs)))
