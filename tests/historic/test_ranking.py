"""Ranks as the releases count them."""

import numpy as np

from mmpt.config import EvalConfig
from mmpt.evaluators import RetrievalMetric
from mmpt.evaluators.ranking import ScoreMatrix, count_ranks
from mmpt.historic.ranking import position_ranks


def test_the_position_rule_is_the_place_in_a_reversed_stable_argsort():
    scores = np.random.default_rng(2).integers(0, 4, size=(40, 40))
    order = np.argsort(scores, axis=1, kind="stable")[:, ::-1]
    expected = np.nonzero(order == np.arange(40)[:, None])[1] + 1
    counts = count_ranks(ScoreMatrix(scores))
    assert (position_ranks(counts.better, counts.tied_after) == expected).all()
    result = RetrievalMetric(EvalConfig(compat=True, bootstrap=0)).evaluate(scores=scores)
    assert (result.per_query["ranks"] == expected).all() and result.facts["tie rule"] == "position"
