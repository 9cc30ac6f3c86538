"""Multiple choice: golden numbers, chance."""

import numpy as np
import pytest
import torch

from mmpt.config import Config, EvalConfig
from mmpt.evaluators import QAMetric, QAPredictor
from mmpt.evaluators.tasks.qa import choose_answers
from tests.conftest import golden_cases, load_golden
from tests.evaluators.mirror import D, Mirror


@pytest.mark.parametrize("path", golden_cases("norton_metrics*.npz"))
def test_golden_norton_metrics_qa(path):
    arrays = load_golden(path)
    assert QAMetric(EvalConfig())(choices=arrays["qa_pred"], answers=arrays["qa_answer"])[
        "acc"
    ] == pytest.approx(float(arrays["qa_acc"]))
    video, text = torch.as_tensor(arrays["qa_pooled_video"]), torch.as_tensor(arrays["qa_pooled_text"])
    n_answers = len(video) // len(arrays["qa_choice"])
    np.testing.assert_array_equal(choose_answers(video, text, n_answers), arrays["qa_choice"])


def test_chance_is_one_in_the_number_of_answers():
    result = QAMetric(EvalConfig(bootstrap=0)).evaluate(choices=[0, 1], answers=[0, 0], n_answers=4)
    assert result.baselines == {"chance": {"acc": 0.25}} and result.per_query["acc"].tolist() == [1, 0]


def test_no_questions_is_an_error():
    with pytest.raises(ValueError, match="empty"):
        QAMetric(EvalConfig())(choices=[], answers=[])


def test_question_answering_takes_the_closest_answer():
    caps = torch.tensor([[[0, 0], [1, 0], [2, 0]], [[3, 0], [4, 0], [5, 0]]])
    video = torch.eye(D)[[2, 3]][:, None]
    batch = {"caps": caps, "cmasks": caps > 0, "vfeats": video, "vmasks": torch.ones(2, 1, dtype=torch.bool)}
    arrays = QAPredictor(Config())(
        [batch | {"answers": torch.tensor([[2], [1]]), "video_id": ["a", "b"]}], Mirror()
    )
    assert arrays["choices"].tolist() == [2, 0] and arrays["answers"].tolist() == [2, 1]
