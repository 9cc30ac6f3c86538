from dataclasses import replace

import pytest

from mmpt.audit import Claim
from mmpt.audit.judge import Hypothesis, Judge, Verdict
from mmpt.audit.protocol import Scorer
from mmpt.audit.suspects import Curve, Departure, suspects
from tests.audit.helpers import make_evidence

METRICS = ("R1", "R5", "R10")
EVIDENCE = make_evidence(n_items=120)
SCORER = Scorer(EVIDENCE, METRICS)


def judge(values) -> Judge:
    return Judge(SCORER, Claim.parse(",".join(f"{n}={values[n]:.1f}" for n in METRICS)), n_rows=120)


def numbers(**changes):
    found = SCORER.numbers(replace(SCORER.clean, **changes))
    return {name: value for name, (value, _) in found.items()}


def test_an_exact_number_speaks_louder_than_one_a_query_away_and_than_a_wide_prediction():
    of = judge(numbers())
    exact = {name: (value, 0.0) for name, value in numbers().items()}
    off = {name: (value + 100 / 120, 0.0) for name, (value, _) in exact.items()}
    wide = {name: (value, 2.0) for name, (value, _) in exact.items()}
    assert of.log_density(exact) > of.log_density(wide) > of.log_density(off)


def test_the_parameter_of_a_curve_is_found_between_its_points():
    curve = Curve("postprocessing", "dual softmax, scale {}", "post", lambda x: ("dual softmax", x))
    of = judge(numbers(post=("dual softmax", 13.7)))
    found = of.hypotheses(curve.points((5.0, 10.0, 20.0, 40.0)))
    best = max(found, key=lambda hypothesis: hypothesis.log_odds)
    assert 12 < best.departures[0].at < 16
    assert best.numbers["R1"][0] == pytest.approx(of.claim.values["R1"], abs=0.06)


def test_hypotheses_of_the_same_families_are_summed():
    one, other = (Departure("ties", text, "ties", text) for text in ("earlier", "later"))
    verdict = Verdict.of([Hypothesis((one,), -1.0), Hypothesis((other,), -1.5), Hypothesis((), -0.9)])
    (best, odds), (second, rest) = verdict.ranked
    assert best.families == ("ties",) and str(best) == "earlier" and str(second) == "the clean protocol"
    assert odds + rest == pytest.approx(1) and odds > 0.5


def test_a_departure_is_not_named_where_it_is_not_the_likeliest_by_far():
    one, other = (Departure(family, family, "ties", family) for family in ("ties", "hubness"))
    none = Hypothesis(None, -3.0)
    close = Verdict.of([Hypothesis((one,), -1.0), Hypothesis((other,), -1.0), none])
    assert close.decision(sure=0.5)[0] is none
    clear = Verdict.of([Hypothesis((one,), -1.0), Hypothesis((other,), -3.0), none])
    assert str(clear.decision(sure=0.5)[0]) == "ties"


def test_weights_of_a_family_sum_to_one_whatever_the_evidence():
    for evidence in (EVIDENCE, make_evidence(captions=3, judged={0: {1}}, listed=300)):
        total = {}
        for departure in suspects(evidence, 0.2):
            total[departure.family] = total.get(departure.family, 0.0) + departure.weight
        assert total == pytest.approx(dict.fromkeys(total, 1.0))
