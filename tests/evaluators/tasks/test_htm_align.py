"""Alignability of narration: golden numbers, area under the curve, edge cases."""

import numpy as np
import pytest
import torch

from mmpt.config import EvalConfig
from mmpt.evaluators import HTMAlignMetric, HTMAlignPredictor
from mmpt.evaluators.tasks.htm_align import UNSEEN, average_windows, roc_auc, window_sentences
from tests.conftest import golden_cases, load_golden
from tests.evaluators.mirror import WINDOWS, D, Mirror


def cosines(text, seconds):
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (text, seconds)]
    return unit[0] @ unit[1].T


@pytest.mark.parametrize("path", golden_cases("norton_htm_align*.npz"))
def test_golden_norton_htm_align(path):
    arrays = load_golden(path)
    similarity, annotations = [], []
    for i in range(int(arrays["n_videos"])):
        features, text = arrays[f"v{i}_features"], arrays[f"v{i}_text_embed"]
        annotations.append(arrays[f"v{i}_anno_aligned_start_end"])
        windows = window_sentences(annotations[-1], len(features))
        parts = [cosines(text, features[start : start + 32]) for start, _ in windows]
        similarity.append(average_windows(windows, parts, len(text), len(features)))
    found = HTMAlignMetric(EvalConfig())(similarity=similarity, annotations=annotations)
    assert found["recall"] == pytest.approx(float(arrays["recall"])) and found["auc"] == pytest.approx(
        float(arrays["auc"])
    )


def test_the_area_under_the_curve_counts_ordered_pairs():
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 5, 60), rng.random(60) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    assert roc_auc(scores, positive) == pytest.approx(np.mean(pairs))


def test_weights_of_the_area_count_as_repeated_sentences():
    rng = np.random.default_rng(1)
    scores, positive = rng.integers(0, 6, 30), rng.random(30) < 0.5
    weights = rng.integers(0, 3, (4, 30))
    expected = [roc_auc(scores.repeat(times), positive.repeat(times)) for times in weights]
    np.testing.assert_allclose(roc_auc(scores, positive, weights), expected)


def test_both_numbers_have_intervals_over_videos():
    rng = np.random.default_rng(0)
    similarity = [rng.random((6, 20)) for _ in range(12)]
    annotations = [np.stack([np.arange(6) % 2, np.arange(6), np.arange(6) + 5], axis=1) for _ in range(12)]
    result = HTMAlignMetric(EvalConfig(bootstrap=200)).evaluate(
        similarity=similarity, annotations=annotations
    )
    assert (
        all(low < result.values[name] < high for name, (low, high) in result.intervals.items())
        and len(result.intervals) == 2
    )
    assert (
        result.per_query["recall"] @ result.per_query["weight"] / result.per_query["weight"].sum()
        == result.best
    )


def test_the_area_without_negatives_is_undefined():
    assert np.isnan(roc_auc(np.arange(3), np.ones(3, bool)))


def test_a_short_video_has_no_window_and_unseen_sentences():
    annotations = np.array([[0, 1, 3], [1, 4, 6]])
    windows = window_sentences(annotations, 16)
    assert windows == []
    assert (average_windows(windows, [], 2, 16) == UNSEEN).all()


def test_windows_far_from_non_alignable_sentences_are_skipped():
    annotations = np.array([[0, 0, 2], [1, 300, 302]])
    starts = [start for start, _ in window_sentences(annotations, 320)]
    assert starts == [0, 8, 16, 24, 32]


def test_a_right_second_is_found_and_luck_is_stated():
    annotations = np.array([[1.0, 2.5, 3.5], [0.0, 0.0, 1.0]])
    similarity = np.zeros((2, 10))
    similarity[0, 4] = 1
    result = HTMAlignMetric(EvalConfig(bootstrap=0)).evaluate(
        similarity=[similarity], annotations=[annotations]
    )
    assert (
        result.values == {"recall": 1, "auc": 1, "compared-recall": 1, "compared-auc": 1}
        and result.warnings == []
    )
    assert result.baselines["random second"]["recall"] == pytest.approx(0.3)


def test_non_finite_similarities_are_counted():
    with pytest.raises(ValueError, match="video 0: 1 of 2 sentences"):
        HTMAlignMetric(EvalConfig())(
            similarity=[np.array([[0, np.nan], [0, 0]])], annotations=[np.zeros((2, 3))]
        )


def test_sentences_that_meet_no_second_are_left_out_of_the_compared_numbers():
    annotations = np.array([[1.0, 2.5, 3.5], [1.0, 6.0, 7.0], [0.0, 0.0, 1.0]])
    similarity = np.full((3, 10), UNSEEN)
    similarity[0, 3], similarity[2] = 0.9, 0.2
    result = HTMAlignMetric(EvalConfig(bootstrap=0)).evaluate(
        similarity=[similarity], annotations=[annotations]
    )
    assert result.values == {"recall": 0.5, "auc": 0.5, "compared-recall": 1, "compared-auc": 1}
    assert result.facts["compared"] == 2 and "1 of 2 alignable sentences meet no second" in result.warnings[0]


def test_narration_is_compared_with_every_second_of_its_windows():
    n_seconds = 40
    video = torch.eye(D)[torch.arange(n_seconds) % D]
    annotations = torch.tensor([[0, 0, 40.0], [1, 2.0, 3.0], [0, 3.0, 4.0]])
    caps = torch.tensor([[[1, 0], [2, 0], [3, 0]]])
    batch = {
        "vfeats": video[None],
        "caps": caps,
        "cmasks": caps > 0,
        "annotations": annotations[None],
        "video_id": ["v"],
    }
    arrays = HTMAlignPredictor(WINDOWS)([batch], Mirror())
    assert arrays["similarity"][0].shape == (3, n_seconds)
    assert arrays["similarity"][0][1].argmax() == 2 and arrays["similarity"][0][1, 2] == pytest.approx(1)
