"""Full-video retrieval as the releases measure it, so that published numbers can be checked (`eval.compat`).

Cost = offset - score, summed along the path, scaled by the size of the block. Costs are negative where scores
are positive, so that a constant added to all scores, which no softmax loss can see, decides the result; see
`docs/alignment.md`. `exact-` values follow the formulas, `historic-` ones the released code with its defects.

Letters: N captions, M clips of the padded blocks; leading axes are pairs of paragraph and video.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmpt.historic.alignment_costs import historic_dtw, historic_otam
from mmpt.ops.alignment import dtw, hard_otam


@dataclass(frozen=True)
class Protocol:
    """Constants of one published evaluation.

    Attributes:
        dtw_offset: offset of the time-warping cost.
        otam_offset: offset of the ordered-alignment cost.
        otam_scale: `area`: multiply a block by largest area / own area, as for time warping; `longest`: by
            longest side / own longest side.
    """

    dtw_offset: float = 0.0
    otam_offset: float = 0.0
    otam_scale: str = "area"


PROTOCOLS = {
    ("norton", "removed"): Protocol(),
    ("norton", "kept"): Protocol(dtw_offset=3.0, otam_scale="longest"),
    ("tempclr", "removed"): Protocol(dtw_offset=1.0, otam_offset=1.0),
    ("tempclr", "kept"): Protocol(dtw_offset=1.0, otam_offset=1.0),
}


def published_measures(
    scores: Tensor,
    lengths: tuple[Tensor, Tensor],
    largest: tuple[int, int],
    protocol: Protocol,
    as_released: bool = True,
) -> dict[str, Tensor]:
    """Minus the alignment cost of each pair, high = close.

    Args:
        scores: (..., N, M).
        lengths: real rows and columns, (...) each.
        largest: captions and clips of the longest paragraph and video of the test.
        protocol: offsets and scales.
        as_released: add the values of the released code.

    Returns:
        `exact-DTW`, `exact-OTAM`, and `historic-DTW`, `historic-OTAM`, (...) each.
    """
    rows, cols = lengths
    area = largest[0] * largest[1] / (rows * cols).double()  # makes short and long videos comparable
    longest = max(largest) / torch.maximum(rows, cols).double()
    otam_scale = {"area": area, "longest": longest}[protocol.otam_scale]
    dtw_cost = (protocol.dtw_offset - scores.double()) * area[..., None, None]
    otam_cost = (protocol.otam_offset - scores.double()) * otam_scale[..., None, None]
    found = {"exact-DTW": -dtw(dtw_cost, lengths), "exact-OTAM": -hard_otam(otam_cost, lengths, both=True)}
    if as_released:
        found["historic-DTW"] = -historic_dtw(dtw_cost, lengths, largest)
        found["historic-OTAM"] = -historic_otam(otam_cost, lengths, largest)
    return found
