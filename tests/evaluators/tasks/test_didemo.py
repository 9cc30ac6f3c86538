"""Moments: golden rankings and numbers."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmpt.config import Config, EvalConfig
from mmpt.evaluators import DiDeMoMetric, DiDeMoPredictor
from mmpt.evaluators.tasks.didemo import MOMENTS, moment_iou, rank_moments
from tests.conftest import golden_cases, load_golden
from tests.evaluators.mirror import D, Loader, Mirror


@pytest.mark.parametrize("path", golden_cases("norton_metrics*.npz"))
def test_golden_norton_metrics_didemo(path):
    arrays = load_golden(path)
    found = DiDeMoMetric(EvalConfig())(rankings=arrays["didemo_rankings"], times=arrays["didemo_times"])
    np.testing.assert_allclose(
        [found["rank1"], found["rank5"], found["miou"]], arrays["didemo_rank1_rank5_miou"], rtol=1e-6
    )


@pytest.mark.parametrize("path", golden_cases("norton_metrics*.npz"))
def test_golden_norton_metrics_didemo_pred_rankings(path):
    arrays = load_golden(path)
    hidden, text, masks = (
        torch.as_tensor(arrays[f"didemo_{name}"]) for name in ("hidden_video", "pooled_text", "vmasks")
    )
    found = [
        rank_moments(video[1 : masks.shape[1] + 1], mask, words)
        for video, mask, words in zip(hidden, masks, text, strict=True)
    ]
    np.testing.assert_array_equal(found, arrays["didemo_pred_rankings"])


def test_there_are_21_moments():
    assert len(MOMENTS) == len(set(MOMENTS)) == 21


def test_overlap_counts_whole_chunks():
    assert (
        moment_iou((0, 1), (0, 1)) == 1
        and moment_iou((0, 0), (1, 1)) == 0
        and moment_iou((0, 2), (1, 1)) == pytest.approx(1 / 3)
    )


def test_moments_after_the_end_of_the_video_are_left_out():
    valid = torch.arange(32) < 12
    ranking = rank_moments(torch.randn(32, 4), valid, torch.ones(4))
    shown = {tuple(moment) for moment in ranking.tolist() if moment[0] >= 0}
    assert shown == {moment for moment in MOMENTS if moment[0] <= 2}


def test_the_right_moment_first_is_perfect():
    times = np.array([[[2, 3]] * 4])
    ranking = np.array([[(2, 3), *(moment for moment in MOMENTS if moment != (2, 3))]])
    assert DiDeMoMetric(EvalConfig(bootstrap=0))(rankings=ranking, times=times) == {
        "rank1": 1,
        "rank5": 1,
        "miou": 1,
    }


def test_didemo_moments_meet_the_annotations_of_their_description_even_where_it_is_given_twice():
    class Meta(list):
        times = [[[2, 2], [2, 3]], [[0, 0]]]

    video = torch.eye(D)[torch.arange(30) // 5][None]
    batch = {
        "caps": torch.tensor([[2]]),
        "cmasks": torch.ones(1, 1),
        "vfeats": video,
        "vmasks": torch.ones(1, 30, dtype=torch.bool),
    }
    batch |= {"video_id": ["a"]}
    loader = Loader([batch | {"idx": torch.tensor([0])}, batch | {"idx": torch.tensor([1])}])
    loader.dataset = SimpleNamespace(meta_processor=Meta([("a", "x"), ("a", "x")]))
    arrays = DiDeMoPredictor(Config())(loader, Mirror())
    assert arrays["rankings"][0][0].tolist() == [2, 2]
    assert arrays["times"].tolist() == [[[2, 2], [2, 3]], [[0, 0], [-1, -1]]]
