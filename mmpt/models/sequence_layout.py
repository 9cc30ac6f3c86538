"""THE packing rule of a clip: `[CLS] video [SEP] words [SEP]`, all index arithmetic in one place.

A caption tensor holds `[CLS] [SEP] w1 .. wn [SEP] [PAD] ..`; its first `[SEP]` closes the video segment. The
joint sequence puts the video between columns 0 and 1. Two-tower models cut the same caption in two: the video
tower reads `[CLS] video [SEP]`, the text tower `[CLS] w1 .. wn [SEP] [PAD] ..`.

Shape letters: B clips, F video tokens, T caption columns, D width. Masks are boolean, true where there is
something to read.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

VIDEO = 1  # the video starts behind [CLS]
SPECIAL = 3  # [CLS], the video's [SEP], the final [SEP]


class Segment(NamedTuple):
    """What one pass of an encoder reads."""

    ids: Tensor  # (B, columns) token ids without the video tokens
    mask: Tensor  # (B, L) positions that can be attended to
    pool: Tensor  # (B, L) positions averaged into the pooled vector


def max_words(max_len: int, max_video_len: int) -> int:
    """Words that fit into a clip beside the video and the special tokens."""
    return max_len - max_video_len - SPECIAL


def video_segment(caps: Tensor, cmasks: Tensor, vmasks: Tensor) -> Segment:
    """`[CLS] video [SEP]` (L = F + 2); pooled over the valid video tokens and the [SEP]."""
    first, sep = cmasks[:, :1], torch.ones_like(cmasks[:, 1:2])
    mask = torch.cat([first, vmasks, cmasks[:, 1:2]], dim=1)
    return Segment(caps[:, :2], mask, torch.cat([torch.zeros_like(first), vmasks, sep], dim=1))


def text_segment(caps: Tensor, cmasks: Tensor) -> Segment:
    """`[CLS] words [SEP]` (L = T - 1); pooled over the words and the final [SEP]."""
    first, words = cmasks[:, :1], cmasks[:, 2:]
    ids = torch.cat([caps[:, :1], caps[:, 2:]], dim=1)
    return Segment(ids, torch.cat([first, words], dim=1), torch.cat([torch.zeros_like(first), words], dim=1))


def segment_lengths(
    columns: np.ndarray, seconds: np.ndarray, candidates: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Positions that are read of `video_segment` (B,) and of `text_segment` (B * candidates,), for masks
    filled from the left.

    Args:
        columns: (B * candidates,) of cmasks that each caption fills.
        seconds: (B,) of vmasks that each video fills.
    """
    return seconds + columns[::candidates].clip(max=2), columns - (columns > 1)


def splice(words: Tensor, video: Tensor | None) -> Tensor:
    """Video tokens (B, F, ...) between column 0 and 1 of `words` (B, T, ...): embeddings and masks alike."""
    if video is None:
        return words
    return torch.cat([words[:, :VIDEO], video, words[:, VIDEO:]], dim=1)


def split(sequence: Tensor, n_video: int) -> tuple[Tensor, Tensor]:
    """Joint sequence (B, F + T, ...) -> what the video tower (B, F + 2, ...) and the text tower (B, T - 1,
    ...) would return."""
    end = n_video + 2
    return sequence[:, :end], torch.cat([sequence[:, :1], sequence[:, end:]], dim=1)


def video_tokens(sequence: Tensor, n_video: int) -> Tensor:
    """The F video positions of a sequence (B, L, ...)."""
    return sequence[:, VIDEO : VIDEO + n_video]


def caption_tokens(sequence: Tensor, n_video: int) -> Tensor:
    """The positions of a joint sequence (B, F + T, ...) that stand under the columns of `caps`, (B, T,
    ...)."""
    return torch.cat([sequence[:, :VIDEO], sequence[:, VIDEO + n_video :]], dim=1)


def position_ids(n_ids: int, n_video: int | None, max_video_len: int, device: torch.device) -> Tensor:
    """Positions of `[CLS] video ids..`, (1, n_ids + n_video).

    However short the video, its [SEP] sits at `max_video_len + 1`, so words keep their places. A text pass
    without video (`n_video=None`, ids without the video's [SEP]) goes on one further, where the first word of
    a joint sequence sits.
    """
    first = max_video_len + 1 if n_video is not None else max_video_len + 2
    head = torch.arange(1 + (n_video or 0), device=device)
    tail = torch.arange(first, first + n_ids - 1, device=device)
    return torch.cat([head, tail])[None]


def token_types(n_ids: int, n_video: int | None, device: torch.device) -> Tensor:
    """0 for `[CLS] video [SEP]` (or a lone [CLS] without video), 1 for the words, (1, n_ids + n_video)."""
    first = 1 if n_video is None else n_video + 2
    types = torch.ones(n_ids + (n_video or 0), dtype=torch.long, device=device)
    types[:first] = 0
    return types[None]


def isolated_mask(cmasks: Tensor, vmasks: Tensor) -> Tensor:
    """Which position sees which when modalities are kept apart, (B, L, L) with L = F + T.

    [CLS] sees itself; video and its [SEP] see the valid video and that [SEP]; words see words.
    """
    mask = splice(cmasks, vmasks)
    group = token_types(cmasks.shape[1], vmasks.shape[1], mask.device)[0] + 1  # 1 video, 2 words
    group[0] = 0  # [CLS]
    same = group[:, None] == group[None, :]  # (L, L)
    return same & mask[:, None, :]


def generation_mask(vmasks: Tensor, n_ids: int) -> Tensor:
    """Which position sees which while a caption is written, (B, L, L) with L = F + n_ids.

    Everything sees [CLS], the valid video and its [SEP]; a word also sees itself and the words before it.
    """
    n_video = vmasks.shape[1]
    head = torch.ones_like(vmasks[:, :1])
    visible = torch.cat([head, vmasks, head], dim=1)  # (B, F + 2)
    length, end = n_video + n_ids, n_video + 2
    mask = torch.zeros(len(vmasks), length, length, dtype=torch.bool, device=vmasks.device)
    mask[:, :, :end] = visible[:, None]
    mask[:, end:, end:] = torch.ones_like(mask[0, end:, end:]).tril()
    return mask


def dummy_caption(caps: Tensor, n_rows: int) -> tuple[Tensor, Tensor]:
    """`[CLS] [SEP] [PAD] [SEP]` and its mask for passes that read video windows only, (n_rows, 4).

    [CLS] and [PAD] are masked out, as in the models whose weights were published; [CLS] and [SEP] ids come
    from `caps` (B, T), and the [PAD] column, never read, holds 0.
    """
    cls_id, sep_id = caps[0, 0], caps[0, 1]
    ids = torch.stack([cls_id, sep_id, torch.zeros_like(cls_id), sep_id])
    mask = torch.tensor([False, True, False, True], device=caps.device)
    return ids.expand(n_rows, 4), mask.expand(n_rows, 4)
