"""The evaluator joins what the project file names."""

import numpy as np
import pytest

from mmpt.config import Config
from mmpt.evaluators import Evaluator
from mmpt.evaluators.metric import Metric


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


class Misspelt(Metric):
    def evaluate(self, pooled_vid, ids=None, **arrays):
        """Never called."""


class Plain(Metric):
    def evaluate(self, pooled_video, **arrays):
        return {"R1": 0.5}


class Short(Metric):
    best_metric = "half"

    def evaluate(self, pooled_video, ids, **arrays):
        return self.mean_result(np.ones(2), {}, ids)


FAULTS = [
    (Misspelt, TypeError, r"Misspelt reads pooled_vid, which .* does not give \(given: ids, pooled_video\)"),
    (Plain, TypeError, "Plain.evaluate returned a dict; expected a Result"),
    (Short, ValueError, "Short: 2 numbers for 3 queries"),
]


@pytest.mark.parametrize("metric, error, message", FAULTS)
def test_a_fault_of_ones_own_metric_is_told_in_its_words(metric, error, message):
    evaluator = Evaluator(Config(predictor="RetrievalPredictor", metric="RetrievalMetric"))
    evaluator.predictor = lambda *args: {"pooled_video": np.ones((3, 2)), "ids": ["a", "b", "c"]}
    evaluator.metric = metric(Config().eval)
    with pytest.raises(error, match=message):
        evaluator.evaluate(None, ())
