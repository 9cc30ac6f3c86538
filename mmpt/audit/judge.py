"""How well each set of departures explains a claim.

Every departure predicts the claimed numbers. The claim then speaks for each by Bayes' rule: a number that is
printed to one decimal and met exactly is strong evidence, a wide prediction (a gallery of which only the size
is known) is weak, and a curve pays for its parameter by the share of it that fits. "None of these" is a
hypothesis of its own: numbers some points away from the clean ones, as another checkpoint has them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from mmpt.audit.evidence import Claim
from mmpt.audit.protocol import Scorer
from mmpt.audit.suspects import Curve, Departure

PRIORS = {"clean": 0.5, "one": 0.36, "two": 0.04, "none": 0.1}
NEGLIGIBLE = math.log(1e-2)  # odds below which a stretch of a curve is not looked into
INNER, ROUNDS = 6, 3  # points tried between two of a curve, each round round the best of the last
NEAR = 1.0  # points by which a claim may lie outside two neighbours of a curve and be sought between them
NONE_SCALES = 5.0, 2.5  # of the first number of another checkpoint, and of each further beside it

Numbers = dict[str, tuple[float, float]]  # metric -> number, spread
Set = tuple[Departure, ...]


@dataclass(frozen=True)
class Hypothesis:
    """A set of departures; none = clean, None = none of those known.

    Attributes:
        departures: of the set.
        log_odds: logarithm of prior times density, to be compared with that of others.
        numbers: that it predicts.
    """

    departures: Set | None
    log_odds: float
    numbers: Numbers = field(default_factory=dict)

    @property
    def families(self) -> tuple[str, ...] | None:
        """Of its departures; hypotheses of the same families are told apart for the reader alone."""
        return None if self.departures is None else tuple(sorted({d.family for d in self.departures}))

    def __str__(self) -> str:
        if self.departures is None:
            return "none of the departures known here"
        return " and ".join(departure.text for departure in self.departures) or "the clean protocol"


@dataclass(frozen=True)
class Verdict:
    """Families from the most to the least probable, each with its best hypothesis and probability."""

    ranked: list[tuple[Hypothesis, float]]

    @classmethod
    def of(cls, hypotheses: Iterable[Hypothesis]) -> Verdict:
        """Sum the hypotheses of each set of families."""
        groups: dict[tuple[str, ...] | None, list[Hypothesis]] = {}
        for hypothesis in hypotheses:
            groups.setdefault(hypothesis.families, []).append(hypothesis)
        odds = {families: _log_sum(h.log_odds for h in group) for families, group in groups.items()}
        total = _log_sum(odds.values())
        order = sorted(odds, key=lambda families: -odds[families])
        best = {families: max(groups[families], key=lambda h: h.log_odds) for families in order}
        return cls([(best[families], math.exp(odds[families] - total)) for families in order])

    def decision(self, sure: float) -> tuple[Hypothesis, float]:
        """The most probable hypothesis; none of those known where it accuses without being `sure`."""
        best, probability = self.ranked[0]
        if not best.departures or probability >= sure:
            return best, probability
        return next((h, p) for h, p in self.ranked if h.departures is None)


class Judge:
    """Weighs hypotheses about one claim.

    Args:
        scorer: computes the numbers of a protocol.
        claim: what is to be explained.
        n_rows: queries behind a number.
    """

    def __init__(self, scorer: Scorer, claim: Claim, n_rows: int):
        self.scorer, self.claim = scorer, claim
        self.slack = 25.0 / n_rows  # a quarter of a query: rounding of scores may swap near ties

    def hypotheses(self, known: list[Departure]) -> list[Hypothesis]:
        """Clean, none, each departure; pairs where none of these explains the claim.

        Some pair fits any single number, so a claim of one number is not tried with pairs.
        """
        missing = [departure for departure in known if departure.value == "file"]
        bases = [(), *((departure,) for departure in missing)]
        known = [departure for departure in known if departure not in missing]
        prior = PRIORS["one"] / len(bases) / max(len({d.family for d in known}), 1)
        found = [self._none(), *(self._weigh(base, PRIORS["clean"] / len(bases)) for base in bases)]
        found += [self._weigh((*base, d), prior * d.weight) for base in bases for d in known]
        for base in bases:
            found += self._along(base, known, prior, found)
        if len(self.claim.values) > 1 and max(found, key=lambda h: h.log_odds).departures is None:
            found += self._pairs(bases, known)
        return found

    def numbers(self, departures: Set) -> Numbers:
        """That the clean protocol gives with these departures."""
        protocol = self.scorer.clean
        for departure in departures:
            protocol = departure.on(protocol)
        return self.scorer.numbers(protocol)

    def log_density(self, numbers: Numbers) -> float:
        """Of the claim, given predicted numbers."""
        return sum(
            _log_density(claimed - numbers[name][0], self.claim.half_unit[name], self.slack, numbers[name][1])
            for name, claimed in self.claim.values.items()
        )

    def _weigh(self, departures: Set, prior: float) -> Hypothesis:
        numbers = self.numbers(departures)
        return Hypothesis(departures, math.log(prior) + self.log_density(numbers), numbers)

    def _none(self) -> Hypothesis:
        clean = self.scorer.numbers(self.scorer.clean)
        first, *others = (self.claim.values[n] - clean[n][0] for n in self.claim.values if n != "MR")
        log_odds = math.log(PRIORS["none"]) + _log_laplace(first, NONE_SCALES[0])
        log_odds += sum(_log_laplace(off - first, NONE_SCALES[1]) for off in others)
        return Hypothesis(None, log_odds + (math.log(0.1) if "MR" in self.claim.values else 0.0))

    def _along(
        self, base: Set, points: list[Departure], prior: float, found: list[Hypothesis]
    ) -> list[Hypothesis]:
        """What lies between neighbours of the curves."""
        between: list[Hypothesis] = []
        for low, high in itertools.pairwise(points):
            if low.curve and low.curve is high.curve:
                between += self._between(low.curve, base, low, high, prior, [*found, *between])
        return between

    def _between(
        self, curve: Curve, base: Set, low: Departure, high: Departure, prior: float, found: list[Hypothesis]
    ) -> list[Hypothesis]:
        """The best point between two of a curve, weighed by the share of the way that fits as well.

        Nothing where the claim is not near, or where even a perfect fit could not compete with what is
        `found`.
        """
        prior *= (low.weight + high.weight) / 2
        exact = {name: (value, 0.0) for name, value in self.claim.values.items()}
        if math.log(prior) + self.log_density(exact) < _log_sum(h.log_odds for h in found) + NEGLIGIBLE:
            return []
        ends = [self.numbers((*base, point)) for point in (low, high)]
        for name, claimed in self.claim.values.items():
            values = sorted(end[name][0] for end in ends)
            if not values[0] - NEAR <= claimed <= values[1] + NEAR:
                return []
        tried = {low.at: ends[0], high.at: ends[1]}
        for _ in range(ROUNDS):
            points = sorted(tried)
            place = points.index(max(tried, key=lambda x: self.log_density(tried[x])))
            around = points[max(place - 1, 0)], points[min(place + 1, len(points) - 1)]
            tried |= {x: self.numbers((*base, curve.at(x))) for x in curve.between(*around, INNER)}
        best = max(tried, key=lambda x: self.log_density(tried[x]))
        if best in (low.at, high.at):
            return []
        name = next(iter(self.claim.values))
        way = abs(ends[1][name][0] - ends[0][name][0])
        share = min(1.0, 2 * (self.claim.half_unit[name] + self.slack) / max(way, 1e-9))
        return [self._weigh((*base, curve.at(best)), prior * share)]

    def _pairs(self, bases: list[Set], known: list[Departure]) -> list[Hypothesis]:
        """Two departures at once: any two without a parameter; one, and every second point of a curve.

        Of families with many curves those alone that have usual points.
        """
        single = [departure for departure in known if departure.curve is None]
        curves = dict.fromkeys(departure.curve for departure in known if departure.curve and departure.usual)
        sparse = [[d for d in known if d.curve is curve] for curve in curves]
        sparse = [[d for i, d in enumerate(points) if d.usual or i % 2 == 0] for points in sparse]
        points = [departure for curve in sparse for departure in curve]
        families = {d.family for d in known}
        prior = PRIORS["two"] / len(bases) / max(math.comb(len(families), 2), 1)
        found: list[Hypothesis] = []
        for base in bases:
            for place, a in enumerate(single):
                others = [
                    b for b in (*single[place + 1 :], *points) if b.family != a.family and b.field != a.field
                ]
                found += [self._weigh((*base, a, b), prior * a.weight * b.weight) for b in others]
                found += self._along((*base, a), others, prior * a.weight, found)
        return found


def _log_density(off: float, half: float, slack: float, spread: float) -> float:
    """Of a printed number `off` points from a predicted one.

    Flat within the rounding and falling beyond; a normal density where the prediction is wide.
    """
    if spread:
        deviation = math.hypot(spread, half)
        return -0.5 * (off / deviation) ** 2 - math.log(deviation * math.sqrt(2 * math.pi))
    return -max(0.0, abs(off) - half) / slack - math.log(2 * half + 2 * slack)


def _log_laplace(off: float, scale: float) -> float:
    return -abs(off) / scale - math.log(2 * scale)


def _log_sum(values: Iterable[float]) -> float:
    values = list(values)
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values))
