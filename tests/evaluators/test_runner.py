"""The evaluator joins what the project file names."""

import numpy as np
import pytest

from mmpt.config import Config, EvalConfig
from mmpt.evaluators import Evaluator, save_arrays


def test_kept_predictions_can_be_scored_again(tmp_path):
    save_arrays(
        tmp_path / "kept.npz", {"pooled_text": np.eye(4), "pooled_video": np.eye(4), "item_ids": list("abcd")}
    )
    evaluator = Evaluator(
        Config(predictor="RetrievalPredictor", metric="RetrievalMetric", eval=EvalConfig(bootstrap=0))
    )
    assert evaluator.rescore(tmp_path / "kept.npz").best == 1


@pytest.mark.parametrize(
    "given, absent",
    [({"metric": "RetrievalMetric"}, "predictor"), ({"predictor": "RetrievalPredictor"}, "metric")],
)
def test_a_missing_class_name_is_an_error_that_lists_the_known_ones(given, absent):
    with pytest.raises(ValueError, match=f"`{absent}` is not set.*Retrieval"):
        Evaluator(Config(**given))


def test_a_misspelt_metric_suggests_the_near_one():
    with pytest.raises(KeyError, match="RetrievalMetric"):
        Evaluator(Config(predictor="RetrievalPredictor", metric="RetreivalMetric"))
