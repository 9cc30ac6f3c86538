"""Long videos are read in windows of seconds; here is where windows lie, and how they become one video again.

Letters: T seconds of the video, W windows, F seconds per window, C columns (labels, steps, hidden units).
"""

from __future__ import annotations

import torch
from torch import Tensor


def window_ranges(length: int, size: int, stride: int | None = None) -> list[tuple[int, int]]:
    """[start, end) seconds of the windows over a video: 1 + max(0, ceil((T - size) / stride)) of them.

    Args:
        length: T, at least 1.
        size: seconds per window; the last one ends with the video.
        stride: seconds between starts, at least 1; None: windows side by side.
    """
    stride = size if stride is None else stride
    if stride < 1 or size < 1:
        raise ValueError(f"size={size}, stride={stride} seconds of windows: both must be at least 1.")
    count = 1 + max(0, -(-(length - size) // stride))
    return [(i * stride, min(i * stride + size, length)) for i in range(count)]


def window_seconds(vmasks: Tensor, stride: int) -> Tensor:
    """The second of the video that each valid row of windows (W, F) shows: (rows,) in the order of the
    concatenated windows."""
    windows, size = vmasks.shape
    start = torch.arange(windows, device=vmasks.device) * stride
    return (start[:, None] + torch.arange(size, device=vmasks.device))[vmasks.bool()]


def mean_by_second(rows: Tensor, second: Tensor) -> Tensor:
    """Mean of the rows (rows, C) that show the same second: (last second + 1, C)."""
    total = rows.new_zeros(int(second.max()) + 1, rows.shape[-1]).index_add(0, second, rows)
    return total / second.bincount()[:, None]


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
    ranges = window_ranges(length, size, stride)
    if rows.ndim == 3:
        rows = torch.cat([window[: end - start] for window, (start, end) in zip(rows, ranges, strict=True)])
    second = torch.cat([torch.arange(start, end) for start, end in ranges]).to(rows.device)
    if len(second) != len(rows):
        raise ValueError(
            f"{len(rows)} rows for a video of {length} s cut every {stride} s into windows of {size} s; "
            f"expected {len(second)}. "
            "Use the sliding_window and sliding_window_size that the data set used."
        )
    return mean_by_second(rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows, second)
