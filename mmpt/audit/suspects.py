"""Departures from the clean protocol that are known to move published numbers, and what each needs to be
possible.

A departure without a free parameter is tried as it is. One with a temperature, a regulariser or a constant is
a curve: tried on a grid, and between two grid points where the claim lies between their numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mmpt.audit.evidence import Evidence
from mmpt.audit.protocol import Protocol
from mmpt.evaluators.postprocess import SINKHORN, SINKHORN_STEPS

FAMILIES = {  # family -> what it is called
    "gallery": "gallery size",
    "captions": "captions per video",
    "duplicates": "duplicates counted as right",
    "ties": "tie rule",
    "postprocessing": "post-processing with the test's queries",
    "similarity": "cosine against dot product",
    "rerank": "second stage",
    "averaging": "captions of a video averaged",
    "direction": "direction",
    "constant": "constant in the alignment measure",
    "judgements": "judged items counted as right",
    "hubness": "hubs taken out",
}

SCALES = tuple(float(x) for x in np.geomspace(1, 500, 16))
USUAL_SCALES = (20.0, 50.0, 100.0)  # QB-norm's 20, and CLIP's logit scale, by which public code multiplies
USUAL_DEPTHS = (5, 10, 16, 20, 32, 50, 64, 100, 128, 200, 256, 500)
DEPTHS = (2, 3, 4, 7, 13, 26, 40, 80, 160)
HUBS = (1, 2, 3, 4, 6, 8, 11, 15, 20, 25)
NEIGHBOURS = (1.0, 2.0, 4.0, 7.0, 14.0, 20.0, 30.0, 50.0)  # of CSLS
USUAL_NEIGHBOURS = (5.0, 10.0)
QB_NEAREST = ((1, 0.2), (2, 0.02), (3, 0.02), (5, 0.05), (10, 0.03))
CONSTANTS = (0.0, 1.0)  # of Norton and of TempCLR
COSINE_SPREAD = 0.5  # scores that spread more are logits


@dataclass(frozen=True)
class Departure:
    """One field of the protocol at another value.

    Attributes:
        family: one of FAMILIES.
        text: what it is, for a reader.
        field: of `Protocol`.
        value: of the field.
        weight: probability within the family.
        usual: tried together with others.
        curve: the curve it lies on, if any.
        at: its parameter there.
    """

    family: str
    text: str
    field: str
    value: Any
    weight: float = 1.0
    usual: bool = True
    curve: Curve | None = None
    at: float = 0.0

    def on(self, protocol: Protocol) -> Protocol:
        """The protocol with this departure."""
        return replace(protocol, **{self.field: self.value})


@dataclass(frozen=True)
class Curve:
    """Departures along one parameter.

    Attributes:
        family: one of FAMILIES.
        text: what it is, with a place for the parameter.
        field: of `Protocol`.
        build: parameter -> value of the field.
        weight: of the whole curve.
        logarithmic: the parameter is a scale.
        whole: only whole numbers make sense.
    """

    family: str
    text: str
    field: str
    build: Callable[[float], Any]
    weight: float = 1.0
    logarithmic: bool = True
    whole: bool = False

    def at(self, x: float, usual: bool = False, weight: float = 0.0) -> Departure:
        """One point."""
        text = self.text.format(f"{x:.4g}")
        return Departure(self.family, text, self.field, self.build(x), weight, usual, self, x)

    def between(self, low: float, high: float, n: int) -> list[float]:
        """Inner points of a stretch, n at most."""
        points = (np.geomspace if self.logarithmic else np.linspace)(low, high, n + 2)[1:-1]
        return sorted({float(round(x)) if self.whole else float(x) for x in points} - {low, high})

    def points(self, grid: tuple[float, ...], usual: tuple[float, ...] = ()) -> list[Departure]:
        """Grid and usual values, in ascending order; half of the weight lies on the usual ones."""
        every = sorted({*grid, *usual})
        base = self.weight * (0.5 if usual else 1.0) / len(every)
        extra = self.weight * 0.5 / max(len(usual), 1)
        return [self.at(x, x in usual, base + extra * (x in usual)) for x in every]


def suspects(evidence: Evidence, spread: float) -> list[Departure]:
    """All departures that this evidence makes possible, weights summing to one in each family.

    Args:
        evidence: the model's output.
        spread: standard deviation of the scores; tells cosines from logits.
    """
    families = (_items,) if evidence.measure else (_items, _queries, _scores, _second_stage)
    found = [departure for family in families for departure in family(evidence)]
    found += _constants(evidence, spread) if evidence.measure else _softmaxes(evidence, spread)
    total: dict[str, float] = {}
    for departure in found:
        total[departure.family] = total.get(departure.family, 0.0) + departure.weight
    return [replace(departure, weight=departure.weight / total[departure.family]) for departure in found]


def _items(e: Evidence) -> Iterator[Departure]:
    """Which items there are, which are right, and which wins a tie."""
    if missing := e.n_listed - len(e.items):
        text = f"gallery of {len(e.items)}: {missing} items of the list are missing"
        yield Departure("gallery", text, "gallery", "file")
    if e.claimed is not None:
        size = e.claimed if isinstance(e.claimed, int) else len(e.claimed)
        yield Departure("gallery", f"gallery of {size} instead of {len(e.items)}", "gallery", "claimed")
    yield Departure("ties", "ties resolved optimistically", "ties", "optimistic", 0.5)
    yield Departure("ties", "ties resolved pessimistically", "ties", "pessimistic", 0.1)
    yield Departure("ties", "of equal scores the later column wins", "ties", "later", 0.2)
    yield Departure("ties", "of equal scores the earlier column wins", "ties", "earlier", 0.2)
    if e.measure:
        return
    if shared := [rows for rows in e.equal_captions if len(np.unique(e.query_item[rows])) > 1]:
        text = f"videos with an equal caption count as right ({sum(map(len, shared))} captions)"
        yield Departure("duplicates", text, "right", "captions")
    if e.judged is not None:
        yield Departure("judgements", "judged items count as right", "right", "judged")


def _queries(e: Evidence) -> Iterator[Departure]:
    """Who asks whom."""
    yield Departure("direction", "video to text", "direction", "v2t")
    yield Departure("duplicates", "items with equal scores count as right", "right", "copies")
    if len(e.query_item) > len(np.unique(e.query_item)):
        yield Departure("captions", "one caption a video (its first) asks", "asking", "first")
        text = "a video counts as found when any of its captions finds it"
        yield Departure("captions", text, "counted", "best")
        yield Departure("averaging", "scores of a video's captions averaged", "averaged", "scores")
        yield Departure("averaging", "best score over a video's captions", "averaged", "best")
        for how in ("unit embeddings", "embeddings") if e.queries is not None else ():
            text = f"{how} of a video's captions averaged into one query"
            yield Departure("averaging", text, "averaged", how)
    if e.one_row_a_caption:
        text = "the gallery lists a video once for each caption, and one row is right"
        yield Departure("captions", text, "gallery", "rows")


def _scores(e: Evidence) -> Iterator[Departure]:
    """Similarity, and corrections of hubs."""
    if e.queries is not None:
        other = {"cosine": "dot", "dot": "cosine"}[e.similarity]
        yield Departure("similarity", f"{other} instead of {e.similarity}", "similarity", other)
        yield Departure("hubness", "both sides centred by the test set's means", "centred", "centred")
        if e.similarity == "cosine":
            text = "unit vectors centred by the test set's means"
            yield Departure("hubness", text, "centred", "unit then centred")
    yield Departure("hubness", "each item's mean over the queries taken off", "post", ("column-centred",))
    text = "each item's scores standardised over the queries"
    yield Departure("hubness", text, "post", ("column z-score",))
    curve = Curve("hubness", "CSLS with {} neighbours", "post", lambda k: ("CSLS", round(k)), whole=True)
    yield from curve.points(NEIGHBOURS, USUAL_NEIGHBOURS)
    if grid := tuple(float(n) for n in HUBS if n <= len(e.items) // 20):
        curve = Curve("hubness", "{} hub items left out, with their queries", "hubs", round, whole=True)
        yield from curve.points(grid, grid[::3])


def _second_stage(e: Evidence) -> Iterator[Departure]:
    if e.reranked is not None:
        n_items = len(e.items)
        usual = tuple(float(depth) for depth in (*USUAL_DEPTHS, n_items) if depth <= n_items)
        grid = tuple(float(depth) for depth in DEPTHS if depth < n_items)
        curve = Curve("rerank", "{} best ordered by the second stage", "rerank", round, whole=True)
        yield from curve.points(grid, usual)


def _of_scale(name: str, *further: Any) -> Callable[[float], Any]:
    """Parameter -> value of a field, which has it in second place."""
    return lambda x: (name, x, *further)


def _softmaxes(e: Evidence, spread: float) -> Iterator[Departure]:
    """Corrections with a temperature."""
    cosines = spread < COSINE_SPREAD
    grid = SCALES if cosines else tuple(x * COSINE_SPREAD / 3 / spread for x in SCALES)
    usual = USUAL_SCALES if cosines else (1.0, *USUAL_SCALES)  # 1: logits that are scaled already
    family, field = "postprocessing", "post"
    for name, text, weight in (
        ("dual softmax", "dual softmax, scale {}", 0.35),
        ("inverted softmax", "softmax over the queries, scale {}", 0.2),
        ("product of softmaxes", "product of both softmaxes, scale {}", 0.15),
    ):
        yield from Curve(family, text, field, _of_scale(name), weight).points(grid, usual)
    for k, weight in QB_NEAREST if e.bank is not None else ():
        text = f"QB-norm with the bank, scale {{}}, {k} nearest"
        yield from Curve(family, text, field, _of_scale("QB-norm", k), weight).points(grid, usual)
    for name, columns_first in SINKHORN.items():
        steps = SINKHORN_STEPS[:-2] if columns_first else SINKHORN_STEPS
        for n in steps:
            text, weight = f"{name}, {n} steps, scale {{}}", (0.1 if columns_first else 0.2) / len(steps)
            curve = Curve(family, text, field, _of_scale(name, n), weight)
            yield from curve.points(grid[::2], usual if n in (5, 50) and not columns_first else ())


def _constants(e: Evidence, spread: float) -> Iterator[Departure]:
    """Published forms of an alignment measure."""
    grid = tuple(float(x) * spread for x in np.arange(-6, 13))
    for form, name, weight in ("exact", "as published", 0.7), ("historic", "as released", 0.3):
        text = f"{e.measure} {name}, cost {{}} - score"
        curve = Curve("constant", text, "published", _of_scale(form), weight, logarithmic=False)
        yield from curve.points(grid, CONSTANTS)
