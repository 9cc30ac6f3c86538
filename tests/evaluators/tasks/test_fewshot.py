"""Few-shot classification: scores of an episode, accuracy over episodes."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmpt.config import EvalConfig
from mmpt.evaluators import FewShotMetric, FewShotPredictor
from mmpt.evaluators.tasks.fewshot import episode_scores
from mmpt.losses.tempclr import FewShotConfig, few_shot_logits
from tests.conftest import golden_cases, load_golden


@pytest.mark.parametrize("path", golden_cases("tempclr_fewshot*.npz"))
def test_golden_tempclr_fewshot_scores_and_accuracy(path):
    golden = load_golden(path)
    for case in range(int(golden["n_cases"])):
        support, labels, query, right = (
            torch.from_numpy(golden[f"c{case}_{name}"])
            for name in ("support", "support_labels", "query", "query_labels")
        )
        scores = episode_scores(support, labels, query, int(labels.max()) + 1)
        np.testing.assert_allclose(
            scores, golden[f"c{case}_otam_logits"], rtol=1e-8 if support.dtype == torch.float64 else 1e-6
        )
        assert float((scores.argmax(-1) == right).double().mean()) == pytest.approx(
            float(golden[f"c{case}_otam_acc"])
        )


def test_evaluation_and_training_use_one_score():
    generator = torch.Generator().manual_seed(0)
    support, query = torch.randn(6, 8, 5, generator=generator), torch.randn(4, 8, 5, generator=generator)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    torch.testing.assert_close(
        episode_scores(support, labels, query, 3),
        few_shot_logits(support, labels, query, FewShotConfig(way=3)),
    )


def test_an_episode_is_judged_by_its_own_queries():
    frames = torch.eye(3)[:, None].expand(3, 4, 3)
    labels = torch.arange(3)
    batch = {
        "support": frames,
        "support_labels": labels,
        "query": frames,
        "query_labels": torch.tensor([0, 1, 1]),
    }
    batch = {name: value[None] for name, value in batch.items()} | {
        "video_id": [["a", "b", "c"]],
        "idx": torch.tensor([4]),
    }
    arrays = FewShotPredictor(SimpleNamespace(dataset=SimpleNamespace(way=3))).predict(
        batch, lambda **sides: sides
    )
    assert arrays["accuracy"].item() == pytest.approx(2 / 3) and arrays["ids"] == [4]


def test_the_interval_is_the_one_that_papers_print():
    accuracy = np.array([0.2, 0.6, 1.0, 0.6])
    result = FewShotMetric(EvalConfig()).evaluate(accuracy, way=[5, 5, 5, 5])
    half = 1.96 * accuracy.std() / 2
    assert result.values == {"acc": pytest.approx(0.6)} and result.intervals["acc"] == pytest.approx(
        (0.6 - half, 0.6 + half)
    )
    assert result.baselines == {"chance": {"acc": 0.2}}
