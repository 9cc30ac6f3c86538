"""One way of getting a number from a model's output: which scores, which rows and columns, what counts as
right, how ties rank.

The clean protocol is every field at its default, with the declared similarity: each caption asks once, from
text to video, against the published list; its own video alone is right; a tied query takes the middle of its
places; no help from other queries, no second stage.

Letters: N rows that ask, M columns that answer, P right answers of a row, I different items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmpt.audit.evidence import Evidence
from mmpt.audit.gallery import at_size
from mmpt.audit.paragraphs import video_scores
from mmpt.evaluators import postprocess
from mmpt.evaluators.ranking import RankCounts, count_tile

_EQUAL = 0.999  # correlation of the scores of two items that count as copies of one


@dataclass(frozen=True)
class Protocol:
    """How scores become a number.

    Attributes:
        similarity: "cosine", "dot"; "stored" where scores are given.
        published: form ("exact", "historic") and constant of an alignment measure; None = shift-free.
        averaged: "" each caption asks; "unit embeddings", "embeddings", "scores", "best": the captions of an
            item ask as one.
        asking: "each" caption, or the "first" of each item.
        gallery: "listed"; "file" (what the file holds, though the list has more); "claimed" (the claim's own
            list or size); "rows" (an item once for each caption).
        hubs: so many of the items that most often rank high are left out, with their queries.
        centred: "" or what is done to embeddings before the product: "centred", "unit then centred".
        direction: "t2v" or "v2t".
        post: name and arguments of a function of `postprocess`; () = none.
        rerank: so many items of each row are ordered by the second stage.
        right: "own", "captions" (items with an equal caption too), "copies" (items with equal scores too),
            "judged".
        counted: "each" row, or the "best" of each item's rows.
        ties: "mean", "optimistic", "pessimistic", "later" or "earlier" column wins.
    """

    similarity: str
    published: tuple[str, float] | None = None
    averaged: str = ""
    asking: str = "each"
    gallery: str = "listed"
    hubs: int = 0
    centred: str = ""
    direction: str = "t2v"
    post: tuple[Any, ...] = ()
    rerank: int = 0
    right: str = "own"
    counted: str = "each"
    ties: str = "mean"

    @property
    def first_stage(self) -> Protocol:
        """What decides the scores of the first stage."""
        return replace(self, rerank=0, right="own", counted="each", ties="mean")


class Outcome(NamedTuple):
    """Per row: the values of each metric (0..1, or a rank), the item it belongs to, its rank in the file.

    `spread` is what sampling adds to the deviation of each metric, in points.
    """

    values: dict[str, np.ndarray]
    item: np.ndarray
    ranks: np.ndarray
    spread: dict[str, float]

    def number(self, name: str) -> float:
        """In percent, or the median rank."""
        values = self.values[name]
        return float(np.median(values)) if name == "MR" else 100 * float(values.mean())


class Layout(NamedTuple):
    """Scores (N, M), and the item of each row and column."""

    scores: Tensor
    rows: np.ndarray
    columns: np.ndarray


class Scorer:
    """Outcomes of one model's output under any protocol.

    Args:
        evidence: the output.
        metrics: names, as in a claim; others give nothing.
    """

    def __init__(self, evidence: Evidence, metrics: Iterable[str]):
        self.evidence = evidence
        self.metrics = list(metrics)
        self.clean = Protocol("stored" if evidence.queries is None else evidence.similarity)
        self._base = lru_cache(maxsize=4)(self._compute_base)
        self._order = lru_cache(maxsize=1)(self._sort)
        self._potentials: dict[Protocol, dict[int, Tensor]] = {}
        self._numbers: dict[Protocol, dict[str, tuple[float, float]]] = {}

    def numbers(self, protocol: Protocol) -> dict[str, tuple[float, float]]:
        """Per metric the number and its spread, in points; remembered."""
        if protocol not in self._numbers:
            outcome = self.outcome(protocol)
            self._numbers[protocol] = {
                name: (outcome.number(name), outcome.spread[name]) for name in self.metrics
            }
        return self._numbers[protocol]

    def outcome(self, protocol: Protocol) -> Outcome:
        """Ranks and metrics of every row."""
        layout = self.layout(protocol)
        counts = count_best(layout.scores, self._right(protocol, layout))
        if protocol.ties in ("earlier", "later"):
            before = counts.tied_before if protocol.ties == "earlier" else counts.tied_after
            ranks = 1.0 + counts.better + before
        else:
            ranks = counts.ranks(protocol.ties)
        items = layout.rows
        if protocol.counted == "best":
            items, group = np.unique(items, return_inverse=True)
            best = np.full(len(items), np.inf)
            np.minimum.at(best, group, ranks)
            ranks = best
        return self._sized(protocol, ranks, items, layout.scores.shape[1])

    def layout(self, protocol: Protocol) -> Layout:
        """Final scores of a protocol."""
        layout = self._selected(protocol)
        if protocol.post:
            layout = layout._replace(scores=self._processed(protocol, layout))
        if protocol.rerank:
            top = self._order(protocol.first_stage)[:, : protocol.rerank]
            second = self._selected(protocol, second=True).scores
            below = layout.scores - (layout.scores.max() - second.min() + 1)
            layout = layout._replace(scores=below.scatter(1, top, second.gather(1, top)))
        return layout

    def _sort(self, protocol: Protocol) -> Tensor:
        return self.layout(protocol).scores.argsort(dim=1, descending=True, stable=True)

    def _compute_base(
        self, similarity: str, published: tuple[str, float] | None, averaged: str, centred: str, second: bool
    ) -> Layout:
        """Rows as they ask, columns as stored."""
        e = self.evidence
        if e.measure:
            items = np.arange(len(e.items))
            found = video_scores(e.scores, e.query_item, e.column_item, e.measure, published)
            return Layout(found, items, items)
        if second:
            scores, averaged = e.reranked, averaged and "scores"
        elif similarity == "stored":
            scores = e.scores
        else:
            queries, gallery = e.queries, e.gallery
            assert queries is not None and gallery is not None  # or there are scores
            if averaged in ("unit embeddings", "embeddings"):
                queries = _join(
                    unit(queries) if averaged == "unit embeddings" else queries, e.query_item, "mean"
                )
            if centred == "unit then centred":
                queries, gallery = unit(queries), unit(gallery)
            if centred:
                queries, gallery = queries - queries.mean(0), gallery - gallery.mean(0)
            scores = _similarity(similarity, queries, gallery)
        if averaged in ("scores", "best"):
            scores = _join(scores, e.query_item, {"scores": "mean", "best": "amax"}[averaged])
        return Layout(scores, np.unique(e.query_item) if averaged else e.query_item, e.column_item)

    def _selected(self, protocol: Protocol, second: bool = False) -> Layout:
        """Rows and columns that take part, rows asking."""
        layout = self._base(
            protocol.similarity, protocol.published, protocol.averaged, protocol.centred, second
        )
        rows, columns = np.arange(len(layout.rows)), np.arange(len(layout.columns))
        if protocol.asking == "first":
            rows = np.unique(layout.rows, return_index=True)[1]
        if protocol.gallery != "rows" and not self.evidence.measure:
            columns = self.evidence.first_column
        if (kept := self._kept(protocol)) is not None:
            rows = rows[np.isin(layout.rows[rows], kept)]
            columns = columns[np.isin(layout.columns[columns], kept)]
        scores, asks, answers = _cut(layout.scores, rows, columns), layout.rows[rows], layout.columns[columns]
        if protocol.direction == "v2t":
            return Layout(scores.T.contiguous(), answers, asks)
        return Layout(scores, asks, answers)

    def _kept(self, protocol: Protocol) -> np.ndarray | None:
        """Items that take part; None: all."""
        claimed = self.evidence.claimed
        kept = np.arange(len(self.evidence.items))
        if protocol.gallery == "claimed" and not isinstance(claimed, int):
            kept = kept[np.isin(self.evidence.items, claimed)]
        if protocol.hubs:
            kept = np.setdiff1d(kept, self.hub_items[: protocol.hubs])
        return kept if len(kept) < len(self.evidence.items) else None

    @cached_property
    def occurrences(self) -> tuple[np.ndarray, np.ndarray]:
        """How often each item is among the first ten of a query, and how often the first."""
        scores = self._selected(self.clean).scores
        n_items = scores.shape[1]
        top = scores.topk(min(10, n_items), dim=1).indices.numpy()
        return np.bincount(top.ravel(), minlength=n_items), np.bincount(top[:, 0], minlength=n_items)

    @cached_property
    def hub_items(self) -> np.ndarray:
        """Items by how often they are among the first ten of a query, most often first."""
        return self._selected(self.clean).columns[np.argsort(-self.occurrences[0], kind="stable")]

    def _processed(self, protocol: Protocol, layout: Layout) -> Tensor:
        name, *arguments = protocol.post
        if name in postprocess.SINKHORN:
            scale, n_steps = arguments
            kernel = replace(
                protocol.first_stage, post=(name, scale)
            )  # many numbers of steps are asked of one
            if kernel not in self._potentials:
                first = postprocess.SINKHORN[name]
                self._potentials[kernel] = postprocess.sinkhorn_potentials(layout.scores, scale, first)
            return scale * layout.scores + self._potentials[kernel][n_steps]
        if name == "QB-norm":
            scale, nearest = arguments
            return postprocess.qb_norm(layout.scores, scale, self._bank(protocol, layout), nearest)
        return postprocess.BY_NAME[name](layout.scores, *arguments)

    def _bank(self, protocol: Protocol, layout: Layout) -> Tensor:
        """(B, M) scores of the bank against the columns that take part."""
        e = self.evidence
        if protocol.gallery == "rows":
            columns = np.flatnonzero(np.isin(e.column_item, layout.columns))
        else:
            columns = e.first_column[layout.columns]
        assert e.bank is not None  # or QB-norm is no suspect
        if e.gallery is None or protocol.similarity == "stored":
            return e.bank[:, columns]
        return _similarity(protocol.similarity, e.bank, e.gallery[columns])

    def _right(self, protocol: Protocol, layout: Layout) -> Tensor:
        """(N, P) columns of each row's right answers, the first repeated where a row has fewer than P."""
        if protocol.gallery == "rows":
            return torch.arange(len(layout.rows))[:, None]
        own = _places(layout.rows, layout.columns)
        if protocol.right == "own":
            return own
        right = torch.zeros(layout.scores.shape, dtype=torch.bool).scatter_(1, own, True)
        if protocol.right == "copies":
            right |= (right.float() @ copies(layout.scores).float()) > 0
        else:
            for row, column in self._further(protocol, layout):
                right[row, column] = True
        return _columns_of(right)

    def _further(self, protocol: Protocol, layout: Layout) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Index pairs (rows, columns) of further right answers of each query.

        Where queries do not stand for themselves, their item has the right answers of all its queries.
        """
        asks, answers = layout.rows, layout.columns
        if protocol.direction == "v2t":
            asks, answers = answers, asks
        themselves = len(asks) == len(self.evidence.query_item)
        for query, items in self._further_right(protocol.right).items():
            rows = [query] if themselves else np.flatnonzero(asks == self.evidence.query_item[query])
            columns = np.flatnonzero(np.isin(answers, list(items)))
            pair = np.ix_(rows, columns)
            yield pair if protocol.direction == "t2v" else (pair[1].T, pair[0].T)

    @lru_cache(maxsize=2)  # noqa: B019  (an audit has one scorer)
    def _further_right(self, kind: str) -> dict[int, set[int]]:
        """Query -> right items beside its own, by equal captions or by judgement."""
        e = self.evidence
        if kind == "judged":
            return dict(e.judged or {})
        groups = [rows for rows in e.equal_captions if len({int(e.query_item[row]) for row in rows}) > 1]
        return {row: {int(e.query_item[other]) for other in rows} for rows in groups for row in rows}

    def _sized(self, protocol: Protocol, ranks: np.ndarray, items: np.ndarray, n_columns: int) -> Outcome:
        """Values at the size of the gallery that the protocol means."""
        e = self.evidence
        wanted = len(e.items)
        if protocol.gallery == "listed":
            wanted = e.n_listed
        elif protocol.gallery == "claimed" and isinstance(e.claimed, int):
            wanted = e.claimed
        captions = protocol.direction == "v2t" and not protocol.averaged
        each = len(e.query_item) / len(e.items) if captions else 1  # columns of an item
        n_then = n_columns + round((wanted - len(e.items)) * each)
        means = {name: metric(name) for name in self.metrics if name != "MR"}
        if n_then == n_columns:
            values = {name: of(ranks) for name, (of, _) in means.items()}
            spread = dict.fromkeys(self.metrics, 0.0)
        else:
            values = at_size(ranks, n_columns, n_then, means)
            spread = {name: 100 * _sampling(values[name], items, n_columns, n_then) for name in means}
            spread["MR"] = 1.0
        if "MR" in self.metrics:
            values["MR"] = 1 + (ranks - 1) * (n_then - 1) / max(n_columns - 1, 1)
        return Outcome(values, items, ranks, spread)


def metric(name: str) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
    """Value of a rank, and the last rank that has one: `R<k>`, or `nDCG<k>` with one right item."""
    k = int(name.lstrip("RnDCG"))
    if name.startswith("R"):
        return lambda ranks: (np.asarray(ranks) <= k).astype(float), k
    return lambda ranks: np.where(np.asarray(ranks) <= k, 1 / np.log2(np.asarray(ranks) + 1.0), 0.0), k


def unit(x: Tensor) -> Tensor:
    """Rows of length one."""
    return torch.nn.functional.normalize(x, dim=1)


def count_best(scores: Tensor, right: Tensor) -> RankCounts:
    """Counts for the best right item of each row; other right items neither beat nor tie it.

    Args:
        scores: (N, M).
        right: (N, P) columns, at least one a row, repeated where a row has fewer.
    """
    if right.shape[1] == 1:
        return count_tile(scores, right[:, 0])
    found = scores.gather(1, right)
    target = right.gather(1, found.argmax(1, keepdim=True))
    without = scores.scatter(1, right, (scores.min() - 1).item())
    return count_tile(without.scatter(1, target, found.amax(1, keepdim=True)), target[:, 0])


def copies(scores: Tensor) -> Tensor:
    """(M, M) bool: items whose scores over the queries are the same, apart from another encoding of one
    video."""
    columns = unit((scores - scores.mean(1, keepdim=True)).T)
    return (columns @ columns.T) > _EQUAL


def _similarity(kind: str, queries: Tensor, gallery: Tensor) -> Tensor:
    return unit(queries) @ unit(gallery).T if kind == "cosine" else queries @ gallery.T


def _sampling(values: np.ndarray, items: np.ndarray, n_now: int, n_then: int) -> float:
    """Deviation of a realised mean round its expectation: which competitors are drawn, whose queries come or
    go.

    Queries of one item meet the same competitors and come and go together, so items are the sample.
    """
    group = np.unique(items, return_inverse=True)[1]
    size = np.bincount(group)
    weight = size / size.mean()
    mean, drawn = np.bincount(group, values) / size, np.bincount(group, values * (1 - values)) / size
    changed = abs(n_then - n_now) / max(n_then, n_now)
    variance = (weight**2 * drawn).mean() + ((weight * (mean - values.mean())) ** 2).mean() * changed
    return float(np.sqrt(variance / n_then))


def _places(rows: np.ndarray, columns: np.ndarray) -> Tensor:
    """(N, P) columns whose item is that of the row."""
    order = np.argsort(columns, kind="stable")
    first = np.searchsorted(columns[order], rows, side="left")
    number = np.searchsorted(columns[order], rows, side="right") - first
    step = np.arange(number.max())
    return torch.from_numpy(order[first[:, None] + np.where(step < number[:, None], step, 0)])


def _columns_of(right: Tensor) -> Tensor:
    """(N, M) bool, at least one a row -> (N, P) columns, the first repeated."""
    number = right.sum(1, keepdim=True)
    found = right.int().argsort(dim=1, descending=True, stable=True)[:, : int(number.max())]
    return torch.where(torch.arange(found.shape[1]) < number, found, found[:, :1])


def _join(rows: Tensor, group: np.ndarray, how: str) -> Tensor:
    """Mean or maximum of the rows of each group, groups in ascending order."""
    index = torch.from_numpy(np.unique(group, return_inverse=True)[1])
    empty = rows.new_zeros(int(index.max()) + 1, rows.shape[1])
    return empty.scatter_reduce(0, index[:, None].expand_as(rows), rows, how, include_self=False)


def _cut(scores: Tensor, rows: np.ndarray, columns: np.ndarray) -> Tensor:
    if len(rows) < scores.shape[0]:
        scores = scores[torch.from_numpy(rows)]
    return scores[:, torch.from_numpy(columns)] if len(columns) < scores.shape[1] else scores
