"""Products of bytes with one query as a compiled loop (optional: needs numba). Same numbers as those of
torch, at the speed of memory."""

from __future__ import annotations

import numba
import numpy as np

STREAMS = 4  # places that are read in turn: one alone waits for memory half of the time


# compiled with the import, when an index is opened, and not with the first query
@numba.njit(
    [(numba.int8[:, ::1], numba.int16[::1], numba.int32[::1])], nogil=True, cache=True, error_model="numpy"
)
def products(codes, query, into):
    """(n, D) int8 times (D,) int16 into (n,) int32, which holds every sum."""
    n, width = codes.shape
    ahead = -(-n // STREAMS)
    for place in range(ahead):
        for row in range(place, n, ahead):
            total = np.int32(0)
            for column in range(width):
                total = np.int32(total + np.int32(codes[row, column]) * np.int32(query[column]))
            into[row] = total
