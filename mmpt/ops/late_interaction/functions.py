"""Token-level similarity of every text with every video, in memory linear in the number of tokens.

Shapes: A texts of T tokens, B videos of F tokens, D width. Cosines of all token pairs would be (A, B, T, F);
here they exist one tile at a time, and the backward pass computes each tile again.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from mmpt.ops.backend import choose
from mmpt.ops.late_interaction._packing import LARGEST_EXPONENT, cannot
from mmpt.ops.precision import PRECISIONS, autocast_off, full_precision, product, resolved

TILE_TOKENS = {
    "cpu": 512,
    "cuda": 4096,
}  # tokens of either side in a tile; on a CPU the tile then stays in the cache


def token_similarity(
    text: Tensor,
    video: Tensor,
    text_mask: Tensor,
    video_mask: Tensor,
    alpha: float | None = 1.0,
    chunk: int | None = None,
    compat: bool = False,
    precision: str = "auto",
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Mean over the tokens of one side of the smooth maximum over the tokens of the other, for all pairs, in
    both directions.

    With cosines r[t, f] of valid tokens: text_to_video[a, b] = mean_t alpha * log sum_f exp(r[t, f] / alpha),
    and video_to_text[a, b] = mean_f alpha * log sum_t exp(r[t, f] / alpha). A text or video without valid
    tokens has similarity 0.

    Args:
        text: (A, T, D) token vectors of any length and floating type; zero vectors have cosine 0.
        video: (B, F, D).
        text_mask: (A, T) bool, true = valid.
        video_mask: (B, F).
        alpha: smoothing; None or 0 takes the hard maximum.
        chunk: tokens of either side per tile; None chooses by device.
        compat: adds what historic code added: it kept padded query tokens, with similarity 0 to all, in the
            outer sum: n_padded / n_valid * alpha * log(n_valid of the other side).
        precision: of the factors of the large products, whose sums are float32: "float32", "tf32" or "bf16",
            see `mmpt.ops.precision.product`; the Triton kernels take float16 for bfloat16, which is as fast
            and more exact for unit vectors. "auto": half precision for half-precision tokens and under
            autocast, where the hardware is then faster.
        backend: "torch"; "triton", where padding costs nothing either (float32 on a GPU, at most 128 tokens a
            clip); "auto", see `mmpt.ops.backend`.

    Returns:
        text_to_video (A, B), video_to_text (A, B), in float32 or, for float64 inputs, float64.

    Raises:
        ValueError: negative alpha, unknown precision, shapes that do not fit, or a backend that cannot do it.

    Example: ColBERT's score of every query with every passage, from its token vectors,
        score, _ = token_similarity(queries, passages, query_mask, passage_mask, alpha=None)
        score = score * query_mask.sum(1, keepdim=True)  # ColBERT sums over the tokens of a query

    Source: Lin et al., "Multi-granularity Correspondence Learning from Long-term Noisy Videos" (Norton), ICLR
        2024, eq. 7-8; the hard maximum is FILIP's, Yao et al., ICLR 2022.
    """
    _check_shapes(text, video, text_mask, video_mask)
    if (alpha is not None and alpha < 0) or precision not in PRECISIONS:
        raise ValueError(
            f"token_similarity: alpha={alpha}, precision={precision!r}; expected alpha >= 0 and one of "
            f"{', '.join(PRECISIONS)}."
        )
    text_mask, video_mask = text_mask.bool(), video_mask.bool()
    precision = resolved(precision, text, video)
    chunk = chunk or TILE_TOKENS.get(text.device.type, 512)
    with autocast_off(text):
        wide = text if text.dtype == torch.float64 else video
        if choose(backend, wide, triton=cannot(text, video, alpha, precision), torch=None) == "triton":
            from mmpt.ops.late_interaction._triton import similarities

            to_video, to_text = similarities(text, video, text_mask, video_mask, alpha, precision)
        elif alpha and 1.0 / alpha <= LARGEST_EXPONENT:
            to_video, to_text = _SharedExp.apply(
                text, video, text_mask, video_mask, float(alpha), chunk, precision
            )
        else:
            to_video, to_text = _by_checkpointed_tiles(text, video, text_mask, video_mask, alpha, chunk)
        if compat and alpha:
            to_video = to_video + _padding_term(text_mask, video_mask, alpha, to_video.dtype)
            to_text = to_text + _padding_term(video_mask, text_mask, alpha, to_text.dtype).T
    return to_video, to_text


def _check_shapes(text: Tensor, video: Tensor, text_mask: Tensor, video_mask: Tensor) -> None:
    if (
        text.shape[:-1] != text_mask.shape
        or video.shape[:-1] != video_mask.shape
        or text.shape[-1] != video.shape[-1]
    ):
        shapes = ", ".join(str(tuple(x.shape)) for x in (text, video, text_mask, video_mask))
        raise ValueError(f"token_similarity expects (A, T, D), (B, F, D), (A, T), (B, F); got {shapes}.")


def _padding_term(query_mask: Tensor, other_mask: Tensor, alpha: float, dtype: torch.dtype) -> Tensor:
    """(queries, others): share of padded query tokens times what a zero row of cosines gives."""
    valid = query_mask.sum(1)
    padded = query_mask.shape[1] - valid
    per_token = alpha * other_mask.sum(1).clamp(min=1).to(dtype).log()
    return (padded.to(dtype) / valid.clamp(min=1))[:, None] * per_token


# -- one exp for both directions: the fast path


class _Block(NamedTuple):
    """Consecutive clips of one side whose tokens make one edge of a tile. P and n are those of the largest
    block of the side."""

    clips: slice
    tokens: Tensor  # (P,) rows of the flattened (N*L, D) tokens; may repeat one to fill up
    # (P, n) 1 where a token is a valid token of a clip, all 0 in rows and columns that only fill up
    member: Tensor
    length: Tensor  # (n,) valid tokens, at least 1


def _blocks(mask: Tensor, budget: int, dtype: torch.dtype) -> list[_Block]:
    """Cuts the clips so that each block holds about `budget` tokens.

    Blocks are filled up to equal size, as products like it: oneDNN makes a kernel for every shape, and keeps
    it.

    On the CPU padded tokens are left out, so that they cost no products. Elsewhere reading the lengths would
    make the host wait for the device; there padded tokens stay and have a zero row in `member`.
    """
    n, width = mask.shape
    drop_padding = mask.device.type == "cpu"
    lengths = mask.sum(1)
    counts = lengths.tolist() if drop_padding else [width] * n
    cuts = _cut(counts, budget)
    size = max((sum(counts[clips]) for clips in cuts), default=0)
    n_clips = max((clips.stop - clips.start for clips in cuts), default=0)
    return [_block(mask, clips, lengths[clips].to(dtype), size, n_clips, drop_padding) for clips in cuts]


def _block(mask: Tensor, clips: slice, length: Tensor, size: int, n_clips: int, drop_padding: bool) -> _Block:
    width, part = mask.shape[1], mask[clips]
    tokens = torch.arange(clips.start * width, clips.stop * width, device=mask.device)
    member = torch.diag_embed(part.T.to(length.dtype)).transpose(0, 1).flatten(0, 1)  # (n*width, n)
    if drop_padding:
        filler, valid = tokens[:1], part.flatten()
        tokens, member = tokens[valid], member[valid]
        tokens = torch.cat([tokens, (tokens[:1] if len(tokens) else filler).expand(size - len(tokens))])
    return _Block(
        clips,
        tokens,
        _resized(member, len(tokens), n_clips),
        F.pad(length, (0, n_clips - len(length))).clamp_(min=1),
    )


def _resized(x: Tensor, rows: int, columns: int) -> Tensor:
    """The matrix cut, or filled up with zeros, to (rows, columns)."""
    return F.pad(x, (0, columns - x.shape[1], 0, rows - x.shape[0]))


def _cut(counts: list[int], budget: int) -> list[slice]:
    """Runs of clips with about equal sums of `counts`, near `budget`."""
    total = sum(counts)
    target = total / max(1, round(total / budget))
    cuts: list[slice] = []
    start, filled = 0, 0
    for stop, count in enumerate(counts, 1):
        filled += count
        if filled >= target * (len(cuts) + 1) - 1e-6:
            cuts.append(slice(start, stop))
            start = stop
    return cuts + [slice(start, len(counts))] * (start < len(counts))


def _inverse_norms(tokens: Tensor, dtype: torch.dtype) -> Tensor:
    """(N*L, 1); 0 for zero vectors, which then have cosine 0 with everything and no gradient."""
    norms = torch.linalg.vector_norm(tokens, dim=-1, dtype=dtype).flatten()[:, None]
    tiny = torch.finfo(dtype).tiny ** 0.5
    return torch.where(norms > tiny, 1.0 / norms.clamp(min=tiny), 0.0)


def _unit(flat: Tensor, inverse_norms: Tensor, block: _Block) -> Tensor:
    return full_precision(flat[block.tokens]).mul_(inverse_norms[block.tokens])


def _tile(
    x: Tensor, y: Tensor, rows: _Block, columns: _Block, alpha: float, precision: str
) -> tuple[Tensor, Tensor, Tensor]:
    """exp(cosines / alpha) (P, Q), its sums over the tokens of each video (P, n_videos) and of each text
    (n_texts, Q)."""
    e = product(x, y, precision).mul_(1.0 / alpha).exp_()
    tiny = torch.finfo(e.dtype).tiny
    return e, product(e, columns.member.T).clamp_(min=tiny), product(rows.member.T, e.T).clamp_(min=tiny)


class _SharedExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, text, video, text_mask, video_mask, alpha, chunk, precision):
        dtype = full_precision(text[:0]).dtype
        out = [torch.zeros(len(text), len(video), dtype=dtype, device=text.device) for _ in range(2)]
        flat = text.flatten(0, 1), video.flatten(0, 1)
        scale = _inverse_norms(text, dtype), _inverse_norms(video, dtype)
        columns = _blocks(video_mask, chunk, dtype)
        for row in _blocks(text_mask, chunk, dtype):
            x = _unit(flat[0], scale[0], row)
            for column in columns:
                y = _unit(flat[1], scale[1], column)
                _, over_video, over_text = _tile(x, y, row, column, alpha, precision)
                to_video = row.member.T @ over_video.log_() * (alpha / row.length)[:, None]
                to_text = over_text.log_() @ column.member * (alpha / column.length)
                for whole, tile in zip(out, (to_video, to_text), strict=True):
                    part = whole[row.clips, column.clips]
                    part.copy_(_resized(tile, *part.shape))
        empty = ~(text_mask.any(1)[:, None] & video_mask.any(1))
        ctx.save_for_backward(text, video, text_mask, video_mask, empty)
        ctx.alpha, ctx.chunk, ctx.precision = alpha, chunk, precision
        return out[0].masked_fill_(empty, 0), out[1].masked_fill_(empty, 0)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_to_video, grad_to_text):
        with autocast_off(grad_to_video):
            return *_shared_exp_gradients(ctx, grad_to_video, grad_to_text), None, None, None, None, None


def _shared_exp_gradients(ctx, grad_to_video: Tensor, grad_to_text: Tensor) -> tuple[Tensor, Tensor]:
    text, video, text_mask, video_mask, empty = ctx.saved_tensors
    dtype = grad_to_video.dtype
    flat = text.flatten(0, 1), video.flatten(0, 1)
    scale = _inverse_norms(text, dtype), _inverse_norms(video, dtype)
    rows, columns = _blocks(text_mask, ctx.chunk, dtype), _blocks(video_mask, ctx.chunk, dtype)
    grad_text, grad_video = (torch.zeros(f.shape, dtype=dtype, device=f.device) for f in flat)
    for row in rows:
        x = _unit(flat[0], scale[0], row)
        grad_x = torch.zeros_like(x)
        for column in columns:
            y = _unit(flat[1], scale[1], column)
            pairs = row.clips, column.clips
            grads = [grad[pairs].masked_fill(empty[pairs], 0) for grad in (grad_to_video, grad_to_text)]
            grads = [_resized(grad, len(row.length), len(column.length)) for grad in grads]
            de = _tile_gradient(_tile(x, y, row, column, ctx.alpha, ctx.precision), row, column, *grads)
            grad_x += product(de, y.T, ctx.precision, rounded_result=True)
            grad_video.index_add_(
                0, column.tokens, product(de.T, x.T, ctx.precision, rounded_result=True).to(dtype)
            )
        grad_text.index_add_(0, row.tokens, grad_x)
        _through_norm(grad_text, flat[0], scale[0], row)
    for column in columns:
        _through_norm(grad_video, flat[1], scale[1], column)
    return grad_text.view(text.shape).to(text.dtype), grad_video.view(video.shape).to(video.dtype)


def _tile_gradient(
    tile: tuple[Tensor, ...], row: _Block, column: _Block, grad_to_video: Tensor, grad_to_text: Tensor
) -> Tensor:
    """Gradient with respect to the cosines of a tile (P, Q): e times what each token's two sums pass down."""
    e, over_video, over_text = tile
    from_video = row.member @ (grad_to_video / row.length[:, None]) / over_video  # (P, n_videos)
    from_text = (grad_to_text / column.length) @ column.member.T / over_text  # (n_texts, Q)
    return e.mul_(product(torch.cat([from_video, row.member], 1), torch.cat([column.member, from_text.T], 1)))


def _through_norm(grad: Tensor, flat: Tensor, inverse_norms: Tensor, block: _Block) -> None:
    """Turns gradients of unit vectors into gradients of the vectors, in place: (g - u (u.g)) / norm."""
    u, g = _unit(flat, inverse_norms, block), grad[block.tokens]
    grad[block.tokens] = torch.addcmul(g, u, (u * g).sum(1, keepdim=True), value=-1).mul_(
        inverse_norms[block.tokens]
    )


# -- hard maximum and small alpha: each direction subtracts its own maximum


def _by_checkpointed_tiles(text, video, text_mask, video_mask, alpha, chunk) -> tuple[Tensor, Tensor]:
    texts, videos = max(1, chunk // text.shape[1]), max(1, chunk // video.shape[1])
    rows = []
    for x, x_mask in zip(text.split(texts), text_mask.split(texts), strict=True):
        tiles = [
            checkpoint(
                _masked_tile, x, y, x_mask, y_mask, alpha, use_reentrant=False, preserve_rng_state=False
            )
            for y, y_mask in zip(video.split(videos), video_mask.split(videos), strict=True)
        ]
        rows.append([torch.cat(direction, dim=1) for direction in zip(*tiles, strict=True)])
    to_video, to_text = zip(*rows, strict=True)
    return torch.cat(to_video), torch.cat(to_text)


def _masked_tile(
    x: Tensor, y: Tensor, x_mask: Tensor, y_mask: Tensor, alpha: float | None
) -> tuple[Tensor, Tensor]:
    x, y = (full_precision(z) for z in (x, y))
    x, y = (
        x * _inverse_norms(x, x.dtype).view(*x.shape[:2], 1),
        y * _inverse_norms(y, y.dtype).view(*y.shape[:2], 1),
    )
    cosines = (x.flatten(0, 1) @ y.flatten(0, 1).T).view(*x.shape[:2], *y.shape[:2])  # (a, T, b, F)
    both = x_mask[:, :, None, None] & y_mask
    cosines = cosines.masked_fill(
        ~both, -4.0
    )  # below every cosine, and finite, so that empty clips stay finite
    over_video = _smooth_max(cosines, alpha, 3).masked_fill(~both.any(3), 0)  # (a, T, b)
    over_text = _smooth_max(cosines, alpha, 1).masked_fill(~both.any(1), 0)  # (a, b, F)
    lengths = x_mask.sum(1).clamp(min=1), y_mask.sum(1).clamp(min=1)
    return over_video.sum(1) / lengths[0][:, None], over_text.sum(2) / lengths[1]


def _smooth_max(cosines: Tensor, alpha: float | None, dim: int) -> Tensor:
    return alpha * torch.logsumexp(cosines / alpha, dim) if alpha else cosines.amax(dim)
