"""Gramian volumes and the losses over them."""

from mmpt.ops.gram.volume import (
    BLOCK_NUMBERS,
    ROUNDING,
    SCORES,
    TupleBasis,
    centred_tuples,
    check_shapes,
    eigen_score,
    gram_volume,
    leading_components,
    least_square,
    length_excess,
    log_own_volume,
    multilinear_product,
    orthonormal_tuples,
    paired_volume,
    rows_per_block,
    score_of,
    score_power,
    square_floor,
    triangle_score,
)
