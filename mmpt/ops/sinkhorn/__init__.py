"""Optimal transport by Sinkhorn steps."""

from mmpt.ops.sinkhorn.functions import (
    BATCH_CHUNK,
    CHECK_EVERY,
    METHODS,
    SAFE_EXPONENT,
    SMALL,
    Steps,
    log_sinkhorn,
)
