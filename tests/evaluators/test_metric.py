"""RetrievalMetric: golden numbers, directions, tie rule, what is stated beside the numbers."""

import numpy as np
import pytest
import torch

from mmpt.config import EvalConfig
from mmpt.evaluators import RetrievalMetric
from tests.conftest import golden_cases, load_golden

NAMES = ("R1", "R5", "R10", "MR")


@pytest.mark.parametrize("path", golden_cases("norton_metrics*.npz"))
def test_golden_norton_metrics_retrieval(path):
    arrays = load_golden(path)
    found = RetrievalMetric(EvalConfig())(scores=arrays["retrieval_scores"])
    np.testing.assert_allclose([found[name] for name in NAMES], arrays["retrieval_R1_R5_R10_MR"], rtol=1e-6)


@pytest.mark.parametrize("path", golden_cases("norton_metrics*.npz"))
def test_golden_norton_metrics_retrieval_tied_is_reproduced_in_compat_mode(path):
    arrays = load_golden(path)
    found = RetrievalMetric(EvalConfig(compat=True))(scores=arrays["retrieval_tied_scores"])
    np.testing.assert_allclose([found[name] for name in NAMES], arrays["retrieval_tied_norton"], rtol=1e-6)


def test_video_to_text_is_retrieval_on_the_transposed_scores():
    scores = np.random.default_rng(0).normal(size=(25, 25))
    both, turned = (
        RetrievalMetric(EvalConfig())(scores=scores),
        RetrievalMetric(EvalConfig())(scores=scores.T),
    )
    assert [both[f"V2T-{name}"] for name in NAMES] == [turned[name] for name in NAMES]


def test_the_outcome_states_counts_ties_duplicates_and_chance():
    vectors = torch.eye(20)
    vectors[1] = vectors[0]
    texts = ["chop the onion", "chop the onion", *map(str, range(18))]
    result = RetrievalMetric(EvalConfig(bootstrap=50)).evaluate(
        pooled_text=vectors, pooled_video=vectors, texts=texts
    )
    assert result.facts == {
        "queries": 20,
        "gallery": 20,
        "tie rule": "mean",
        "tied queries": 2,
        "duplicate captions": 1,
    }
    assert result.baselines["chance"] == {"R1": 0.05, "R5": 0.25, "R10": 0.5, "MR": 10.5} | {
        "V2T-R1": 0.05, "V2T-R5": 0.25, "V2T-R10": 0.5, "V2T-MR": 10.5
    }  # fmt: skip
    assert result.values["R1"] == 0.9
    low, high = result.intervals["R1"]
    assert low < 0.9 < high
    assert result.per_query["ranks"].tolist() == [1.5, 1.5] + [1.0] * 18


def test_a_gallery_that_lists_a_video_twice_is_named():
    result = RetrievalMetric(EvalConfig(bootstrap=0)).evaluate(
        scores=np.eye(4), item_ids=["a", "a", "b", "c"]
    )
    assert "4 items but only 3 different" in result.warnings[0]


def test_several_captions_of_a_video_share_its_place_in_the_gallery():
    scores = np.array([[2.0, 1.0], [3.0, 0.0], [1.0, 0.5]])
    result = RetrievalMetric(EvalConfig(bootstrap=0)).evaluate(scores=scores, targets=[0, 0, 1])
    assert result.per_query["ranks"].tolist() == [1, 1, 2] and "V2T-R1" not in result.values


def test_no_interval_is_computed_when_switched_off():
    assert RetrievalMetric(EvalConfig(bootstrap=0)).evaluate(scores=np.eye(4)).intervals == {}
