"""Alignment of two sequences by dynamic programming."""

from mmpt.ops.alignment.functions import (
    Lengths,
    assign_steps,
    cosine_cost,
    drop_dtw,
    dtw,
    dtw_path,
    hard_otam,
    otam,
    otam_path,
    soft_dtw,
    soft_dtw_divergence,
)
from mmpt.ops.alignment.monotone import monotone_assignment
