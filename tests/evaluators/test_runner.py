"""The evaluator joins what the project file names."""

import pytest

from mmpt.config import Config
from mmpt.evaluators import Evaluator


@pytest.mark.parametrize(
    "given, absent",
    [({"metric": "RetrievalMetric"}, "predictor"), ({"predictor": "RetrievalPredictor"}, "metric")],
)
def test_a_missing_class_name_is_an_error_that_lists_the_known_ones(given, absent):
    with pytest.raises(ValueError, match=f"{absent} is not set.*Retrieval"):
        Evaluator(Config(**given))


def test_a_misspelt_metric_suggests_the_near_one():
    with pytest.raises(KeyError, match="RetrievalMetric"):
        Evaluator(Config(predictor="RetrievalPredictor", metric="RetreivalMetric"))
