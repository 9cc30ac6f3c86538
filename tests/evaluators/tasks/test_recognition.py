"""Action recognition over splits."""

import numpy as np
import pytest

from mmpt.config import EvalConfig
from mmpt.evaluators import ActionRecognitionMetric
from tests.conftest import golden_cases, load_golden


def test_each_split_scores_its_test_videos_alone():
    scores = np.eye(4)[[0, 1, 2, 0]]
    labels = np.array([0, 1, 2, 3])
    splits = np.array([[2, 1, 1], [2, 1, 1], [1, 2, 1], [1, 2, 2]])
    result = ActionRecognitionMetric(EvalConfig(bootstrap=10)).evaluate(scores, labels, splits)
    assert [result.values[f"split{i}-acc"] for i in (1, 2, 3)] == [1, 0.5, 0]
    assert result.values["mean-acc"] == 0.5 and result.best == 1 and result.baselines["chance"]["R1"] == 0.25


def test_only_test_videos_are_queries_named_with_their_split():
    splits = np.array([[2, 1, 1], [2, 1, 1], [1, 2, 1], [1, 2, 2]])
    result = ActionRecognitionMetric(EvalConfig(bootstrap=0)).evaluate(
        np.eye(4)[[0, 1, 2, 0]], range(4), splits, ids=list("abcd")
    )
    assert result.per_query["ids"].tolist() == ["split1 a", "split1 b", "split2 c", "split2 d", "split3 d"]
    assert (result.per_query["ranks"] > 1).tolist() == [False, False, False, True, True]


@pytest.mark.parametrize("path", golden_cases("gdt_data*.npz"))
def test_golden_gdt_data_accuracy_of_videos_by_the_mean_logits_of_their_clips(path):
    golden = load_golden(path)
    ids = golden["clip_video_id"]
    labels = golden["video_labels"][ids]
    result = ActionRecognitionMetric(EvalConfig(bootstrap=0)).evaluate(
        golden["clip_logits"], labels, np.full((len(ids), 1), 2), ids=ids
    )
    found = [100 * result.values[f"split1-{name}"] for name in ("acc", "R1", "R5")]
    assert found == pytest.approx([float(golden[f"video_acc{k}"]) for k in (1, 1, 5)])
    assert result.facts["videos"] == len(golden["video_labels"])


def test_clips_of_one_video_with_two_labels_are_an_error():
    with pytest.raises(ValueError, match="clips of video a differ"):
        ActionRecognitionMetric(EvalConfig()).evaluate(np.eye(2), [0, 1], np.full((2, 1), 2), ids=["a", "a"])


def test_a_split_without_test_videos_is_an_error():
    with pytest.raises(ValueError, match="split 1 has no test video"):
        ActionRecognitionMetric(EvalConfig()).evaluate(np.eye(2), [0, 1], np.ones((2, 3)))
