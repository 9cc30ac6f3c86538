"""What is done to a score matrix with the help of the whole test set. Each function takes queries x items
and returns the same, high = close.

A user asks one query; these need all queries (or a bank of others) at once, so a number behind them is not
that of a search engine. Per row, every function is given up to a monotone map, which changes no rank.

Letters: N queries, M items, B queries of a bank.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SINKHORN_STEPS = (1, 2, 3, 5, 10, 20, 50)  # the order shows in the first ten; beyond fifty little changes


def dual_softmax(scores: Tensor, scale: float) -> Tensor:
    """scores * softmax over the queries of (scale * scores), as CAMoE and its descendants test (arXiv
    2109.04290)."""
    return scores * torch.softmax(scale * scores, dim=0)


def inverted_softmax(scores: Tensor, scale: float) -> Tensor:
    """softmax over the queries; also QB-norm with the test queries as the bank (arXiv 1702.03859,
    2112.12777)."""
    return scale * scores - torch.logsumexp(scale * scores, dim=0)


def product_softmax(scores: Tensor, scale: float) -> Tensor:
    """softmax over the queries times softmax over the items, in logarithms without what is constant in a
    row."""
    return 2 * scale * scores - torch.logsumexp(scale * scores, dim=0)


def qb_norm(scores: Tensor, scale: float, bank: Tensor, nearest: int = 1) -> Tensor:
    """Dynamic QB-norm: rows whose best item is among the `nearest` of some bank query are divided by the
    items' sums over the bank.

    Args:
        bank: (B, M) scores of the bank's queries.

    Source: Bogolin et al., "Cross Modal Retrieval with Querybank Normalisation", CVPR 2022.
    """
    active = torch.isin(scores.argmax(1), bank.topk(nearest, dim=1).indices)
    return torch.where(active[:, None], scale * scores - torch.logsumexp(scale * bank, dim=0), scale * scores)


def csls(scores: Tensor, nearest: int) -> Tensor:
    """2 * scores minus each item's mean score with its nearest queries (arXiv 1710.04087); the row's own
    mean changes no rank."""
    return 2 * scores - scores.topk(min(nearest, len(scores)), dim=0).values.mean(0)


def column_centred(scores: Tensor) -> Tensor:
    """Each item's mean over the queries taken off."""
    return scores - scores.mean(0)


def column_standardised(scores: Tensor) -> Tensor:
    """Each item's scores over the queries with mean 0 and deviation 1."""
    return (scores - scores.mean(0)) / scores.std(0).clamp_min(torch.finfo(scores.dtype).tiny)


def sinkhorn_potentials(scores: Tensor, scale: float, columns_first: bool = False) -> dict[int, Tensor]:
    """Sinkhorn's plan with uniform marginals, in logarithms without what is constant in a row: scale *
    scores + potential.

    Not `ops.sinkhorn`, which always starts with the rows: in few steps the order shows.

    Returns:
        number of steps, each rows then columns -> (M) potential, for the numbers in SINKHORN_STEPS.
    """
    logits = scale * scores
    kernel = torch.exp((logits - logits.amax(1, keepdim=True)).double())
    tiny = 1e-150  # its inverse times a column of ones still fits float64
    rows, cols = kernel.new_ones(len(kernel)), kernel.new_ones(kernel.shape[1])
    if columns_first:
        cols = 1 / (kernel.T @ rows).clamp_min(tiny)
    found = {}
    for step in range(1, (10 if columns_first else SINKHORN_STEPS[-1]) + 1):
        rows = 1 / (kernel @ cols).clamp_min(tiny)
        cols = 1 / (kernel.T @ rows).clamp_min(tiny)
        if step in SINKHORN_STEPS:
            found[step] = cols.log().to(logits.dtype)
    return found


BY_NAME: dict[str, Callable[..., Tensor]] = {
    "dual softmax": dual_softmax,
    "inverted softmax": inverted_softmax,
    "product of softmaxes": product_softmax,
    "CSLS": csls,
    "column-centred": column_centred,
    "column z-score": column_standardised,
}
SINKHORN = {"Sinkhorn": False, "Sinkhorn, columns first": True}  # name -> whether the columns come first
