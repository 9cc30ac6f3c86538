"""How late interaction is cut for the kernels: the shape of a tile, and which token lies where in it.

Legend: N clips of L tokens. A block is one edge of a tile, its places are slots.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

LARGEST_EXPONENT = (
    40.0  # exp(+-1/alpha) up to here keeps float32 sums exact: both directions can share one exp
)

# precision -> dtype of the factors, how tl.dot multiplies float32. Half precision is float16 throughout: unit
# vectors and scaled gradients stay in its range, where it is as fast as bfloat16 and 8 times as exact.
FACTORS = {
    "float32": (torch.float32, "tf32x3"),
    "tf32": (torch.float32, "tf32"),
    "bf16": (torch.float16, "tf32"),
}
SCRATCH_TOP = 4096.0  # the largest gradient in a float16 scratch matrix stays within twice this


class Tile(NamedTuple):
    """Shape of a tile and of its launch."""

    rows: int  # slots of x
    columns: int  # slots of y
    texts: int  # most clips in a block of x
    videos: int  # most clips in a block of y
    step: int  # of the width, in one round of the product
    width: int  # of a tile of the tokens' gradients
    warps: int
    stages: int
    chunk: tuple[int, int]  # rows and columns of the scratch matrix


# (bytes of a factor, whether the GPU is a Hopper or newer): what its registers and shared memory hold
TILES = {
    (2, True): Tile(128, 128, 16, 16, 64, 128, 8, 3, (8192, 16384)),
    (2, False): Tile(128, 64, 16, 16, 64, 128, 8, 3, (8192, 16384)),
    (4, True): Tile(128, 64, 16, 16, 32, 64, 8, 3, (8192, 4096)),
    (4, False): Tile(128, 64, 16, 16, 32, 64, 8, 3, (8192, 4096)),
}


def tile_of(precision: str, alpha: float | None, device: torch.device) -> Tile:
    """The tile for factors of a precision on a device; the interpreter takes that of the smallest GPU.

    The hard maximum needs more registers, so that its tiles are small everywhere.
    """
    hopper = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)
    return TILES[FACTORS[precision][0].itemsize, hopper and bool(alpha)]


def cannot(text: Tensor, video: Tensor, alpha: float | None, precision: str) -> str | None:
    """Why the kernels cannot compute a similarity, or None."""
    tile = tile_of(precision, alpha, text.device)
    longest, other = sorted((text.shape[1], video.shape[1]), reverse=True)
    if longest > tile.rows or other > tile.columns:
        return f"a clip has at most {tile.rows} tokens on one side and {tile.columns} on the other"
    if alpha and 1.0 / alpha > LARGEST_EXPONENT:
        return f"alpha is at least {1 / LARGEST_EXPONENT}, or 0"
    return "there are no tokens" if 0 in text.shape or 0 in video.shape else None


class Packing(NamedTuple):
    """Which slot holds which token."""

    token: Tensor  # (slots,) row of the flattened (N*L, D) tokens; -1 in slots that fill up
    clip: Tensor  # (slots,) its clip; -1 in slots that fill up
    first: Tensor  # (blocks + 1,) first clip of each block; N from the first unused block on
    length: Tensor  # (N,) valid tokens
    used: Tensor  # () blocks in use; the host knows only how many there can be


def pack(mask: Tensor, slots: int, most_clips: int) -> Packing:
    """Fills blocks of `slots` with the valid tokens of consecutive clips, next fit.

    Nothing here waits for the device.

    Args:
        mask: (N, L) bool, L at most `slots`.
        slots: of a block.
        most_clips: of a block.
    """
    n, width = mask.shape
    most_blocks = math.ceil(n / min(most_clips, slots // width))
    number = torch.arange(n, device=mask.device)
    length = mask.sum(1)
    stop = length.cumsum(0)
    start = stop - length
    # where the next block begins if one begins at clip i; following it from clip 0 on gives the blocks
    follow = torch.searchsorted(stop, start + slots, right=True).minimum(number + most_clips)
    follow = torch.cat([follow, follow.new_full((1,), n)])
    begins = torch.zeros_like(follow)
    begins[0] = 1
    for _ in range(n.bit_length()):  # after round k all those within 2^k blocks are known
        begins = begins.scatter_reduce(0, follow, begins, "amax")
        follow = follow[follow]
    begins = begins[:n]
    block = begins.cumsum(0) - 1
    first = number.new_full((most_blocks + 2,), n).scatter_(
        0, torch.where(begins > 0, block, most_blocks + 1), number
    )
    slot = block * slots + start - start[first[block]]
    slot = torch.where(mask, slot[:, None] + mask.cumsum(1) - 1, most_blocks * slots).flatten()
    empty = slot.new_full((most_blocks * slots + 1,), -1)
    token = empty.scatter(0, slot, torch.arange(n * width, device=mask.device))
    clip = empty.scatter(0, slot, number.repeat_interleave(width))
    return Packing(*(x.int() for x in (token[:-1], clip[:-1], first[:-1], length, begins.sum())))
