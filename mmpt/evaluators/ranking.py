"""Where the right item stands in each query's list, counted tile by tile.

Letters: N queries, M gallery items, D width. Memory grows with M, never with N x M, unless the caller already
    holds the matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmpt.historic.ranking import tied_and_first

TIE_RULES = ("mean", "optimistic", "pessimistic")
_TILE_ELEMENTS = 2**23  # 32 MiB of float32 scores at a time
_COUNTED_ELEMENTS = 2**17
HUB_K = 10


class ScoreMatrix:
    """Scores of queries (rows) against gallery items (columns): stored, or multiplied out row by row from
    embeddings.

    Args:
        scores: (N, M); or None with the next two.
        queries: (N, D) embeddings.
        gallery: (M, D) embeddings.

    Raises:
        ValueError: not two-dimensional, unequal widths, or rows that are not finite (the message says how
            many).
    """

    def __init__(self, scores=None, *, queries=None, gallery=None):
        self._stored = None if scores is None else _matrix("scores", scores)
        if self._stored is not None:
            _refuse_rows("scores", ~_finite_rows(self._stored))
            self.shape = tuple(self._stored.shape)
            return
        if queries is None or gallery is None:
            raise ValueError(
                "retrieval needs a score matrix, or embeddings of queries and of the gallery; got neither "
                "in full."
            )
        self.queries, self.gallery = (
            _matrix("query embeddings", queries),
            _matrix("gallery embeddings", gallery),
        )
        if self.queries.shape[1] != self.gallery.shape[1]:
            raise ValueError(
                f"query embeddings are {self.queries.shape[1]} wide, gallery embeddings "
                f"{self.gallery.shape[1]}; "
                "both must come from one model."
            )
        for name, rows in ("query embeddings", self.queries), ("gallery embeddings", self.gallery):
            _refuse_rows(name, ~rows.norm(dim=1).isfinite())  # finite norms bound every dot product
        self.shape = (len(self.queries), len(self.gallery))

    def __getitem__(self, index) -> Tensor:
        """Score rows of a slice or index tensor of queries, (n, M)."""
        if self._stored is not None:
            return self._stored[index]
        return self.queries[index] @ self.gallery.T

    def between(self, queries: Tensor, items: Tensor) -> Tensor:
        """Scores (n, m) of some queries with some gallery items."""
        if self._stored is not None:
            return self._stored[queries][:, items]
        return self.queries[queries] @ self.gallery[items].T

    @property
    def transposed(self) -> ScoreMatrix:
        """Gallery items as queries."""
        if self._stored is not None:
            return ScoreMatrix(self._stored.T)
        return ScoreMatrix(queries=self.gallery, gallery=self.queries)

    def centred_cosine(self) -> ScoreMatrix | None:
        """Cosines of the embeddings after each side's mean is taken off; None where only scores are known."""
        if self._stored is not None:
            return None
        sides = [torch.nn.functional.normalize(x - x.mean(0), dim=1) for x in (self.queries, self.gallery)]
        return ScoreMatrix(queries=sides[0], gallery=sides[1])

    def cosine(self) -> ScoreMatrix | None:
        """Cosines of the embeddings; None where only scores are known."""
        if self._stored is not None:
            return None
        sides = [torch.nn.functional.normalize(x, dim=1) for x in (self.queries, self.gallery)]
        return ScoreMatrix(queries=sides[0], gallery=sides[1])

    def thinned(self, most: int = 400) -> Tensor:
        """At most `most` rows and columns, evenly spread, for pictures."""
        rows, cols = (
            torch.linspace(0, n - 1, min(n, most), dtype=torch.float64).round().long() for n in self.shape
        )
        return self[rows][:, cols].cpu()

    def tiles(self) -> Iterator[tuple[slice, Tensor]]:
        """Slices of queries and their score rows, a bounded number of elements at a time; a tile is
        overwritten by the next."""
        step = max(1, min(256, _TILE_ELEMENTS // self.shape[1]))
        buffer = (
            None
            if self._stored is not None
            else self.queries.new_empty(min(step, self.shape[0]), self.shape[1])
        )
        for start in range(0, self.shape[0], step):
            rows = slice(start, min(start + step, self.shape[0]))
            yield (
                rows,
                self[rows]
                if buffer is None
                else torch.mm(self.queries[rows], self.gallery.T, out=buffer[: rows.stop - start]),
            )


def _matrix(name: str, values) -> Tensor:
    values = torch.as_tensor(values).detach()
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(
            f"{name} must be a matrix with at least one row and column, got shape {tuple(values.shape)}."
        )
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def _finite_rows(values: Tensor) -> Tensor:
    low, high = values.aminmax(dim=1)
    return low.isfinite() & high.isfinite()


def _refuse_rows(name: str, bad: Tensor) -> None:
    if bad.any():
        first = bad.nonzero()[0].item()
        raise ValueError(
            f"{name}: {int(bad.sum())} of {len(bad)} rows hold NaN or infinity (first: row {first}); "
            "ranks of such rows mean nothing. Look for NaN features or a checkpoint of a diverged run."
        )


class RankCounts(NamedTuple):
    """Per query: gallery items that score strictly higher than the right one, others that score the same, by
    side of its column, and how many of these the sort of the releases puts before it."""

    better: np.ndarray
    tied_before: np.ndarray
    tied_after: np.ndarray
    tied_first: np.ndarray

    @property
    def tied(self) -> np.ndarray:
        return self.tied_before + self.tied_after

    def ranks(self, rule: str = "mean") -> np.ndarray:
        """Ranks from 1 (best), float64.

        `mean` gives a tied query the middle of the places it could take, `released` its place in
        numpy's sort.
        """
        if rule == "released":
            return 1.0 + self.better + self.tied_first
        if rule not in TIE_RULES:
            raise ValueError(f"eval.tie_rule is {rule!r}; expected one of {', '.join(TIE_RULES)}.")
        share = {"mean": 0.5, "optimistic": 0.0, "pessimistic": 1.0}[rule]
        return 1.0 + self.better + share * self.tied

    @classmethod
    def join(cls, parts: Iterable[RankCounts]) -> RankCounts:
        """Counts of all queries from those of consecutive tiles."""
        return cls(*map(np.concatenate, zip(*parts, strict=True)))


def count_tile(tile: Tensor, targets: Tensor) -> RankCounts:
    """Counts of one block of score rows (n, M) whose right columns are `targets` (n).

    The right item's score is read from the same tile as its competitors': a second product could round
    differently and let an item beat itself.
    """
    targets = targets.to(tile.device)
    right = tile.gather(1, targets[:, None])
    better = _count_rows(torch.gt, tile, right)
    tied = _count_rows(torch.ge, tile, right) - better - 1
    after, first = torch.zeros_like(tied), torch.zeros_like(tied)
    some = tied.nonzero()[:, 0]
    if len(some):  # rare, so the columns are looked at for these queries alone
        later = torch.arange(tile.shape[1], device=tile.device) > targets[some, None]
        after[some] = torch.count_nonzero((tile[some] == right[some]) & later, dim=1)
        first[some] = tied_and_first(tile[some], targets[some])
    return RankCounts(*(count.cpu().numpy() for count in (better, tied - after, after, first)))


def _count_rows(compare: Callable[[Tensor, Tensor], Tensor], tile: Tensor, right: Tensor) -> Tensor:
    """True entries per row of compare(tile, right), a few rows at a time: counting widens its input, which
    should stay in the cache."""
    step = max(1, _COUNTED_ELEMENTS // tile.shape[1])
    parts = zip(tile.split(step), right.split(step), strict=True)
    return torch.cat([torch.count_nonzero(compare(rows, of_rows), dim=1) for rows, of_rows in parts])


def count_ranks(scores: ScoreMatrix, targets=None) -> RankCounts:
    """Compare every query's right item with the whole gallery.

    Args:
        scores: N x M.
        targets: (N) column of each query's right item; None: query i belongs to item i.

    Raises:
        ValueError: without `targets`, N and M differ; or a target lies outside the gallery.
    """
    n_queries, n_items = scores.shape
    if targets is None:
        if n_queries != n_items:
            raise ValueError(
                f"{n_queries} queries against {n_items} gallery items: pairing row i with column i needs "
                "equal counts. "
                "Pass `targets` where several captions share a video."
            )
        targets = torch.arange(n_queries)
    targets = torch.as_tensor(targets)
    if len(targets) != n_queries or targets.min() < 0 or targets.max() >= n_items:
        raise ValueError(
            f"targets must name one of {n_items} gallery items for each of {n_queries} queries, got "
            f"{len(targets)} targets."
        )
    counts = np.empty(
        (len(RankCounts._fields), n_queries), dtype=np.int64
    )  # filled in place: many small results between large tiles would fragment the heap
    for rows, tile in scores.tiles():
        counts[:, rows] = count_tile(tile, targets[rows])
    return RankCounts(*counts)


def judged_counts(scores: ScoreMatrix, right: Sequence[Sequence[int]]) -> RankCounts:
    """Counts for the best right item of each query, where there are several: `right` lists the columns of
    each, its own item among them. Right items do not compete with each other."""
    counts = np.zeros((len(RankCounts._fields), len(right)), dtype=np.int64)
    for rows, tile in scores.tiles():
        for i, row in enumerate(tile, start=rows.start):
            columns = torch.as_tensor(right[i], device=tile.device)
            best = row[columns].max()
            place = int(columns[row[columns].argmax()])
            row = row.index_fill(0, columns, -torch.inf)
            row[place] = best
            counts[:, i] = [int(count[0]) for count in count_tile(row[None], torch.tensor([place]))]
    return RankCounts(*counts)


def hubness(scores: ScoreMatrix) -> float:
    """Skewness of how many queries have an item among their ten best; 0 = no hubs."""
    counts = sum(among_best(tile) for _, tile in scores.tiles())
    return skewness(counts.double())


def among_best(tile: Tensor) -> Tensor:
    """How often each item is among the HUB_K best of a query, for the queries of a block (C, M) alone."""
    return torch.bincount(
        tile.topk(min(HUB_K, tile.shape[1]), dim=1).indices.flatten(), minlength=tile.shape[1]
    )


def skewness(values: Tensor) -> float:
    """Third central moment over the cube of the deviation; 0 where nothing varies."""
    centred = values - values.mean()
    spread = centred.square().mean().sqrt()
    return (centred.pow(3).mean() / spread**3).item() if spread > 0 else 0.0


def rank_metrics(ranks: np.ndarray) -> dict[str, float]:
    """R1, R5, R10 (shares of queries, 0..1) and MR (median rank)."""
    return {name: float(statistic(name)(ranks)) for name in ("R1", "R5", "R10", "MR")}


def statistic(name: str):
    """The function over the last axis that a metric name means: `R<k>` and `MR` of ranks, `mean` of any
    per-query number."""
    if name == "mean":
        return lambda values: np.asarray(values).mean(axis=-1)
    if name == "MR":
        return lambda ranks: np.median(ranks, axis=-1)
    if name.startswith("R") and name[1:].isdigit():
        k = int(name[1:])
        return lambda ranks: (np.asarray(ranks) <= k).mean(axis=-1)
    raise ValueError(f"unknown statistic {name!r}; expected R<k> (R1, R5, ...), MR or mean.")


def chance(n_items: int) -> dict[str, float]:
    """What random scores reach on average against a gallery with one right item in `n_items`."""
    levels = {f"R{k}": min(k, n_items) / n_items for k in (1, 5, 10)}
    return {**levels, "MR": (n_items + 1) / 2}
