"""How well the modalities of matched items agree, by volume; all numbers from one sweep over captions x
items.

Letters: N captions, M items, K modalities, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from mmpt.evaluators.gram_scores import ItemSet, Scorer
from mmpt.evaluators.ranking import among_best, count_tile, skewness
from mmpt.ops import gram

UNIFORMITY_ROWS = 2048
PAIR_BLOCK = 512


def alignment(captions: Tensor, items: ItemSet, targets: Tensor, names: Sequence[str]) -> dict[str, float]:
    """The alignment report of one subset of modalities.

    Volumes are geometric means over the modalities present where some are missing.

    Args:
        captions: (N, D), or embeddings of another anchor.
        items: M items.
        targets: (N) item of each caption.
        names: of the anchor and the K modalities.

    Items that have none of the modalities are left out.

    Returns:
        positive_volume: mean over matched pairs; minimal_volume: mean over captions of the smallest volume
            with any item (gramian_value of
        the released code); contrast: mean volume of mismatched over matched pairs; own_volume: of the items
        without caption; eigenvalue: largest of the Gram matrix over its size; cosine_<a>_<b>; uniformity_<a>:
        log mean exp(-2 |x - y|^2), low = spread out; hubness: skewness of how many captions have an item
        among their ten best by volume, 0 = no hubs; hubness_cosine: the same by mean cosine;
        rank_correlation: Spearman, of matched volume with rank.
    """
    usable = items.mask.any(1)
    if not usable.all():
        asked = usable[targets]
        captions, targets = captions[asked], (usable.cumsum(0) - 1)[targets[asked]]
        items = ItemSet.of([x[usable] for x in items.modalities], items.mask[usable])
    positive, eigen = _matched(captions, items, targets)
    scorer = Scorer(captions, items, "volume")
    least, mean, counts, ranks = _sweep(scorer, targets)
    own_volume = scorer.log_own.exp().mean()
    del scorer  # large, and another one follows
    n_items = len(items.mask)
    negative = (mean * n_items - positive) / max(n_items - 1, 1)
    report = {
        "positive_volume": positive.mean(),
        "minimal_volume": least.mean(),
        "contrast": negative.mean() / positive.mean().clamp_min(1e-12),
        "own_volume": own_volume,
        "eigenvalue": eigen.mean(),
        **_cosines(captions, items, targets, *names),
        f"uniformity_{names[0]}": _uniformity(captions),
        **{
            f"uniformity_{name}": _uniformity(items.modalities[k][items.mask[:, k]])
            for k, name in enumerate(names[1:])
        },
        "hubness": skewness(counts.double()),
        "hubness_cosine": skewness(_occurrences(Scorer(captions, items, "cosine")).double()),
        "rank_correlation": spearman(positive.numpy(), ranks),
    }
    return {name: round(float(value), 4) for name, value in report.items()}


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation, ties at their mean rank; 0 where one of them does not vary."""
    a, b = _mean_ranks(a), _mean_ranks(b)
    spread = a.std() * b.std()
    return float(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread > 0 else 0.0


def _matched(captions: Tensor, items: ItemSet, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Volume and eigenvalue score (N,) of every caption with its item, from explicit residuals."""
    volumes, eigen = [], []
    for rows in torch.arange(len(captions)).split(PAIR_BLOCK):
        tuples, mask = items.take(targets[rows])
        volumes.append(gram.paired_volume(captions[rows], tuples, mask, dim_norm=items.dim_norm))
        eigen.append(gram.eigen_score(torch.stack([captions[rows], *tuples], dim=1), mask.sum(1) + 1))
    return torch.cat(volumes), torch.cat(eigen)


def _sweep(scorer: Scorer, targets: Tensor) -> tuple[Tensor, Tensor, Tensor, np.ndarray]:
    """Smallest and mean volume of each caption (N,), how often each item is among the best (M,), rank of the
    right item (N,)."""
    n_captions, n_items = scorer.shape
    least, mean = torch.empty(2, n_captions, dtype=torch.float64)
    counts, ranks = torch.zeros(n_items, dtype=torch.long), np.empty(n_captions)
    for rows in scorer.blocks():
        tile = scorer.rows(rows)
        least[rows], mean[rows] = -tile.amax(1).double(), -tile.mean(1, dtype=torch.float64)
        counts += among_best(tile)
        ranks[rows] = count_tile(tile, targets[rows]).ranks()
    return least, mean, counts, ranks


def _occurrences(scorer: Scorer) -> Tensor:
    """How often each item is among the best of a caption (M,)."""
    counts = torch.zeros(scorer.shape[1], dtype=torch.long)
    for rows in scorer.blocks():
        counts += among_best(scorer.rows(rows))
    return counts


def _cosines(captions: Tensor, items: ItemSet, targets: Tensor, anchor: str, *names: str) -> dict[str, float]:
    """Mean cosine of matched pairs of modalities, over the items that have both."""
    streams = dict(zip(names, zip(items.modalities, items.mask.T, strict=True), strict=True))
    cosines = {}
    for name, (x, there) in streams.items():
        pairs = there[targets].nonzero()[:, 0]
        cosines[f"cosine_{anchor}_{name}"] = _mean(_paired_cosines(captions, x, pairs, targets[pairs]))
    for (first, (x, has_x)), (second, (y, has_y)) in combinations(streams.items(), 2):
        both = (has_x & has_y).nonzero()[:, 0]
        cosines[f"cosine_{first}_{second}"] = _mean(_paired_cosines(x, y, both, both))
    return cosines


def _paired_cosines(x: Tensor, y: Tensor, of_x: Tensor, of_y: Tensor) -> Tensor:
    """Dot products of rows `of_x` with rows `of_y`."""
    found = x.new_empty(len(of_x))
    for rows in torch.arange(len(of_x)).split(PAIR_BLOCK):
        found[rows] = (x[of_x[rows]] * y[of_y[rows]]).sum(1)
    return found


def _mean(values: Tensor) -> float:
    return values.mean().item() if len(values) else float("nan")


def _uniformity(x: Tensor) -> float:
    """Of at most UNIFORMITY_ROWS evenly spaced rows."""
    x = x[:: -(-len(x) // UNIFORMITY_ROWS)] if len(x) else x
    if len(x) < 2:
        return float("nan")
    squared = torch.pdist(x.double()).square()
    return (squared.mul(-2).logsumexp(0) - np.log(len(squared))).item()


def _mean_ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]
