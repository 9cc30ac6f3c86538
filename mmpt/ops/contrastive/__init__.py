"""Cross entropies on score matrices, and on rows of scores that are never stored."""

from mmpt.ops.contrastive.functions import (
    cosine_scores,
    dot_scores,
    exclude_negatives,
    info_nce,
    milnce,
    soft_cross_entropy,
    symmetric_info_nce,
)
from mmpt.ops.contrastive.rows import Excluded, milnce_of_rows, nce_of_rows, row_logsumexp, row_statistics
