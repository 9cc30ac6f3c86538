"""Long videos are scored in overlapping windows; here they become one video again.

Letters: T seconds of the video, W windows, F seconds per window, C columns (labels, steps, hidden units).
"""

from __future__ import annotations

import torch
from torch import Tensor


def window_ranges(length: int, stride: int, size: int) -> list[tuple[int, int]]:
    """Seconds [start, end) of each window: starts every `stride` until what is left fits one window."""
    starts = range(0, max(1, length - size + stride), stride)
    return [(start, min(start + size, length)) for start in starts]


def merge_windows(rows: Tensor, length: int, stride: int, size: int) -> Tensor:
    """Average the rows of every second over the windows that cover it.

    Args:
        rows: (sum of window lengths, C) valid seconds of all windows, or (W, F, C) padded windows.
        length: T.
        stride: seconds between window starts.
        size: seconds per window.

    Returns:
        (T, C), float32 or wider.

    Raises:
        ValueError: the rows are not those of such windows.
    """
    ranges = window_ranges(length, stride, size)
    if rows.ndim == 3:
        rows = torch.cat([window[: end - start] for window, (start, end) in zip(rows, ranges, strict=True)])
    seconds = torch.cat([torch.arange(start, end) for start, end in ranges]).to(rows.device)
    if len(seconds) != len(rows):
        raise ValueError(
            f"{len(rows)} rows for a video of {length} s cut every {stride} s into windows of {size} s; "
            f"expected {len(seconds)}. "
            "Use the sliding_window and sliding_window_size that the data set used."
        )
    rows = rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
    total = rows.new_zeros(length, rows.shape[1]).index_add_(0, seconds, rows)
    return total / torch.bincount(seconds, minlength=length)[:, None]
