"""Each known mistake is recognised, named with its cure, and its absence is silent."""

import numpy as np
import pytest
import torch
from torch import nn

from mmpt.config import EvalConfig
from mmpt.evaluators import RetrievalMetric, sanity
from mmpt.evaluators.result import Result


def test_twenty_captions_per_video_as_gallery_are_named():
    scores = np.random.default_rng(0).normal(size=(60, 60))
    result = RetrievalMetric(EvalConfig(bootstrap=0)).evaluate(
        scores=scores, item_ids=[f"video{i // 20}" for i in range(60)]
    )
    assert "20 captions for each" in result.warnings[0] and "MSRVTT_JSFUSION_test.csv" in result.warnings[0]


def test_a_gallery_of_another_size_than_the_queries_is_named():
    result = RetrievalMetric(EvalConfig(bootstrap=0)).evaluate(
        scores=np.eye(3)[[0, 0, 1, 2]], targets=[0, 0, 1, 2]
    )
    assert result.warnings == sanity.unequal_sides(4, 3) != []


def test_layers_without_weights_are_named():
    assert "lacks 4 tensors of the model (a, b, c, ...)" in sanity.unloaded_layers("a.pt", list("abcd"))[0]


def test_nothing_is_said_where_nothing_is_wrong():
    assert sanity.unequal_sides(3, 3) == sanity.unloaded_layers("a.pt", []) == []


@pytest.mark.parametrize(("low", "named"), [(0.25, True), (0.31, False)])
def test_a_result_that_a_trivial_model_reaches_too_is_named(low, named):
    baselines = {"all background": {"frame_acc": 0.3}, "no number": {"other": 0.9}}
    result = Result({"frame_acc": 0.33}, "frame_acc", {"frame_acc": (low, 0.4)}, baselines)
    found = sanity.no_better_than_trivial(result)
    assert [("'all background'" in text and "0.3000" in text) for text in found] == [True] * named


def test_a_baseline_under_the_statistic_of_a_split_is_found():
    result = Result({"split1-acc": 0.2}, "split1-acc", {"split1-acc": (0.1, 0.3)}, {"chance": {"acc": 0.25}})
    assert len(sanity.no_better_than_trivial(result)) == 1


def test_batch_norms_that_never_saw_a_batch_are_named():
    model = nn.Sequential(
        nn.BatchNorm1d(4), nn.Linear(4, 4), nn.BatchNorm1d(4), nn.BatchNorm1d(4, track_running_stats=False)
    )
    model[0].train()(torch.randn(8, 4))
    assert [("1 of 2" in text and "first: 2" in text) for text in sanity.unset_batch_norm("x.pt", model)] == [
        True
    ]
    model[2].train()(torch.randn(8, 4))
    assert sanity.unset_batch_norm("x.pt", model) == []
