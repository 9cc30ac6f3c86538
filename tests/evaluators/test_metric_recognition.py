"""Action recognition over splits."""

import numpy as np
import pytest

from mmpt.config import EvalConfig
from mmpt.evaluators import ActionRecognitionMetric


def test_each_split_scores_its_test_videos_alone():
    scores = np.eye(4)[[0, 1, 2, 0]]
    labels = np.array([0, 1, 2, 3])
    splits = np.array([[2, 1, 1], [2, 1, 1], [1, 2, 1], [1, 2, 2]])
    outcome = ActionRecognitionMetric(EvalConfig(bootstrap=10)).evaluate(scores, labels, splits)
    assert [outcome.values[f"split{i}-acc"] for i in (1, 2, 3)] == [1, 0.5, 0]
    assert outcome.values["mean-acc"] == 0.5 and outcome.best == 1 and outcome.baselines["chance"]["R1"] == 0.25


def test_only_test_videos_are_queries_named_with_their_split():
    splits = np.array([[2, 1, 1], [2, 1, 1], [1, 2, 1], [1, 2, 2]])
    outcome = ActionRecognitionMetric(EvalConfig(bootstrap=0)).evaluate(np.eye(4)[[0, 1, 2, 0]], range(4), splits, ids=list("abcd"))
    assert outcome.per_query["ids"].tolist() == ["split1 a", "split1 b", "split2 c", "split2 d", "split3 d"]
    assert (outcome.per_query["ranks"] > 1).tolist() == [False, False, False, True, True]


def test_a_split_without_test_videos_is_an_error():
    with pytest.raises(ValueError, match="split 1 has no test video"):
        ActionRecognitionMetric(EvalConfig()).evaluate(np.eye(2), [0, 1], np.ones((2, 3)))
