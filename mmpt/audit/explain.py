"""An audit: the departures that a claim comes from, and what each is worth, one bar after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mmpt.audit.evidence import Claim, Evidence
from mmpt.audit.gallery import at_size
from mmpt.audit.judge import Judge, Set, Verdict
from mmpt.audit.protocol import Outcome, Scorer, metric
from mmpt.audit.suspects import Departure, suspects
from mmpt.evaluators.bootstrap import bounds, resamples, times_drawn

UNDO = (  # fields of the protocol, the last in effect first
    *("ties", "counted", "right", "rerank", "post", "direction", "hubs", "asking"),
    *("averaged", "published", "centred", "similarity", "gallery"),
)
LEAST = 0.1  # points that a departure not in the claim must move to be listed
LEAST_RIVAL = 0.001  # probability
SURE = 0.5  # probability from which a departure is named: a wrong accusation is worse than none


@dataclass(frozen=True)
class Bar:
    """A step: what is taken off, by how many points, with a 95 % interval, and the number after it."""

    family: str
    text: str
    points: float
    interval: tuple[float, float] | None
    after: float


@dataclass(frozen=True)
class Finding:
    """The outcome of an audit.

    Attributes:
        claim: as given.
        metric: the one that is decomposed.
        bars: from the claim to the clean number; their points add up to the difference.
        clean: the clean number of each metric.
        interval: of the clean number of `metric`.
        named: departures that the claim comes from, those that explain most first; empty where there is none.
        explained: whether the claim is the clean number, or comes from what is `named`.
        probability: of this verdict, given the departures known here.
        rivals: (sentence, probability) of other explanations.
        reproduced: the claimed metrics as this verdict gives them.
        sensitivity: what departures that the claim does not come from would add to the clean number.
        facts: about the test set.
        remarks: sentences.
    """

    claim: Claim
    metric: str
    bars: list[Bar]
    clean: dict[str, float]
    interval: tuple[float, float]
    named: list[Departure]
    explained: bool
    probability: float
    rivals: list[tuple[str, float]]
    reproduced: dict[str, float]
    sensitivity: list[Bar]
    facts: dict[str, Any]
    remarks: list[str]


def audit(
    evidence: Evidence, claim: Claim, n_samples: int = 2000, seed: int = 0, scorer: Scorer | None = None
) -> Finding:
    """Explain a claim.

    Args:
        evidence: the model's output on the test set.
        claim: numbers said to come from it; the first is decomposed.
        n_samples: bootstrap samples of the items (captions of one item are drawn together).
        seed: of the samples.
        scorer: of an earlier audit of the same evidence, with these metrics: it remembers what it computed.
    """
    scorer = scorer or Scorer(evidence, claim.values)
    clean = scorer.numbers(scorer.clean)
    layout = scorer.layout(scorer.clean)
    scores = layout.scores if evidence.scores is None or not evidence.measure else evidence.scores
    spread = float(scores.std())
    known = _that_matter(scorer, claim, suspects(evidence, spread))
    verdict = Verdict.of(Judge(scorer, claim, len(layout.rows)).hypotheses(known))
    best, probability = verdict.decision(SURE)
    departures = sorted(best.departures or (), key=lambda departure: UNDO.index(departure.field))
    bars, interval, aside = _waterfall(scorer, claim, tuple(departures), known, n_samples, seed)
    worth = {bar.text: abs(bar.points) for bar in bars}
    return Finding(
        claim=claim,
        metric=next(iter(claim.values)),
        bars=bars,
        clean={name: clean[name][0] for name in claim.values},
        interval=interval,
        named=sorted(departures, key=lambda departure: -worth[departure.text]),
        explained=best.departures is not None,
        probability=probability,
        rivals=[(str(h), p) for h, p in verdict.ranked[:4] if h is not best and p > LEAST_RIVAL],
        reproduced={name: (best.numbers or clean)[name][0] for name in claim.values},
        sensitivity=aside,
        facts=_facts(scorer),
        remarks=[] if best.departures is not None else [_unexplained(scorer, claim)],
    )


def _that_matter(scorer: Scorer, claim: Claim, known: list[Departure]) -> list[Departure]:
    """Without those that leave every claimed number as it is; points of a curve stay together."""
    clean = scorer.numbers(scorer.clean)

    def moves(departure: Departure) -> bool:
        numbers = scorer.numbers(departure.on(scorer.clean))
        return any(abs(numbers[name][0] - clean[name][0]) > 1e-9 for name in claim.values)

    found = [departure for departure in known if departure.curve or moves(departure)]
    copied = next((scorer.numbers(d.on(scorer.clean)) for d in found if d.value == "copies"), None)
    # where all ties are between copies of one item, the rule that favours them is not a second explanation
    return [d for d in found if d.field != "ties" or scorer.numbers(d.on(scorer.clean)) != copied]


def _waterfall(
    scorer: Scorer, claim: Claim, departures: Set, known: list[Departure], n_samples: int, seed: int
) -> tuple[list[Bar], tuple[float, float], list[Bar]]:
    """Bars from the claim to the clean number, its interval, and bars of departures not in the claim."""
    metric_name = next(iter(claim.values))
    protocols = [scorer.clean]
    for departure in reversed(departures):
        protocols.append(departure.on(protocols[-1]))
    families = {departure.family for departure in departures}
    others = _strongest(scorer, [d for d in known if d.usual and d.family not in families], metric_name)
    outcomes = [scorer.outcome(p) for p in (*protocols, *(d.on(scorer.clean) for d in others))]
    numbers = [outcome.number(metric_name) for outcome in outcomes]
    generator = np.random.default_rng(seed)
    draws = _draws(outcomes, metric_name, len(scorer.evidence.items), n_samples, generator)

    def bar(departure: Departure, with_it: int, without: int, sign: int) -> Bar:
        points = sign * (numbers[with_it] - numbers[without])
        interval = bounds(sign * (draws[with_it] - draws[without]))
        after = numbers[without] if sign < 0 else numbers[with_it]
        return Bar(departure.family, departure.text, points, interval, after)

    full = len(departures)
    left = numbers[full] - claim.values[metric_name]
    bars = [Bar("", "not explained (a printed number is rounded)", left, None, numbers[full])]
    bars += [bar(d, full - step, full - step - 1, -1) for step, d in enumerate(departures)]
    aside = [bar(d, full + 1 + place, 0, 1) for place, d in enumerate(others)]
    return bars, bounds(draws[0]), aside


def _strongest(scorer: Scorer, departures: list[Departure], name: str) -> list[Departure]:
    """Of each family the departure that moves the clean number most."""
    clean = scorer.numbers(scorer.clean)[name][0]
    moved = {d: abs(scorer.numbers(d.on(scorer.clean))[name][0] - clean) for d in departures}
    found: dict[str, Departure] = {}
    for departure in sorted(departures, key=lambda d: -moved[d]):
        if moved[departure] >= LEAST:
            found.setdefault(departure.family, departure)
    return list(found.values())


def _draws(
    outcomes: list[Outcome], name: str, n_items: int, n_samples: int, generator: np.random.Generator
) -> np.ndarray:
    """(outcomes, samples) numbers over items drawn with replacement, the same draw for all.

    Wide predictions add their own deviation.
    """
    sums = np.stack([np.bincount(o.item, o.values[name], n_items) for o in outcomes], axis=1)
    counts = np.stack([np.bincount(o.item, minlength=n_items) for o in outcomes], axis=1)
    parts = []
    for index in resamples(n_items, n_samples, generator):
        times = times_drawn(index, n_items)
        parts.append(100 * (times @ sums) / np.maximum(times @ counts, 1))
    draws = np.concatenate(parts).T
    spread = np.array([outcome.spread[name] for outcome in outcomes])[:, None]
    return draws + spread * generator.standard_normal(draws.shape)


def _facts(scorer: Scorer) -> dict[str, Any]:
    e = scorer.evidence
    found: dict[str, Any] = {
        "queries": len(e.items if e.measure else e.query_item),
        "gallery": len(e.items),
        "published list": e.n_listed,
        "similarity": "as stored" if e.queries is None else e.similarity,
    }
    if e.left_out:
        found["queries left out, as their item is not in the gallery"] = e.left_out
    if e.measure:
        return found | {"captions": len(e.query_item), "clips": len(e.column_item)}
    often, first = scorer.occurrences
    hubs = max(1, len(first) // 100)
    third = ((often - often.mean()) ** 3).mean() / max(often.std(), 1e-9) ** 3
    found["skewness of how often an item is among the first ten (0: no hubs)"] = float(third)
    share = np.sort(first)[::-1][:hubs].sum() / first.sum()
    found[f"share of first places held by the {hubs} most frequent items"] = float(share)
    return found


def _unexplained(scorer: Scorer, claim: Claim) -> str:
    """What else there may be, and the gallery size at which the clean protocol would give the claim."""
    text = (
        "No departure known here explains the claimed numbers better than others do. Likely causes: "
        "another checkpoint or other features, frames or crops; a second stage, a bank of queries or a "
        "list that is not among the files; too few claimed numbers to tell departures apart."
    )
    if scorer.evidence.measure:
        return text
    name = next(iter(claim.values))
    outcome = scorer.outcome(scorer.clean)
    n_items = scorer.layout(scorer.clean).scores.shape[1]
    of = {other: metric(other) for other in claim.values if other != "MR"}
    sizes = np.unique(np.geomspace(max(11, n_items / 8), 8 * n_items, 60).astype(int))
    found = {int(n): at_size(outcome.ranks, n_items, int(n), of) for n in sizes}
    size = min(found, key=lambda n: abs(100 * found[n][name].mean() - claim.values[name]))
    if size in (sizes[0], sizes[-1]):
        return text
    there = ", ".join(f"{other} {100 * values.mean():.1f}" for other, values in found[size].items())
    return f"{text} A gallery of about {size} items (here {n_items}) would have {there}."
