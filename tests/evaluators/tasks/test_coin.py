"""Second-by-second labels: golden numbers, the all-background line, zero-shot labels."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmpt.config import EvalConfig
from mmpt.evaluators import COINActionSegmentationMetric, COINPredictor, COINZSPredictor
from mmpt.evaluators.tasks.coin import label_seconds, label_threshold
from mmpt.ops.windows import merge_windows
from tests.conftest import golden_cases, load_golden
from tests.evaluators.mirror import WINDOWS, Loader, Mirror, windowed


@pytest.mark.parametrize("path", golden_cases("norton_metrics*.npz"))
def test_golden_norton_metrics_coin(path):
    arrays = load_golden(path)
    found = COINActionSegmentationMetric(EvalConfig())(Y_pred=arrays["coin_pred"], Y_true=arrays["coin_true"])
    assert found["frame_acc"] == pytest.approx(float(arrays["coin_frame_acc"]))


@pytest.mark.parametrize("path", golden_cases("norton_metrics*.npz"))
def test_golden_norton_metrics_coinzs(path):
    arrays = load_golden(path)
    labels = torch.as_tensor(arrays["coinzs_label_embed"])
    assert label_threshold(labels) == pytest.approx(float(arrays["coinzs_offdiag_max"]), rel=1e-5)
    n_seconds = arrays["coinzs_vmasks"].shape[1]
    hidden = torch.as_tensor(arrays["coinzs_hidden"])[:, 1 : n_seconds + 1]
    scores = merge_windows(hidden @ labels.T, int(arrays["coinzs_video_len"]), n_seconds // 2, n_seconds)
    np.testing.assert_array_equal(
        label_seconds(scores, float(arrays["coinzs_threshold"])), arrays["coinzs_pred"]
    )


def test_the_all_background_model_stands_beside_the_numbers():
    true = np.array([0, 0, 0, 1, 0, 2, 2, 2])
    metric = COINActionSegmentationMetric(EvalConfig(bootstrap=50))
    result = metric.evaluate(Y_pred=np.ones(8, int), Y_true=true, lengths=[4, 4], ids=["a", "b"])
    assert result.values == {"frame_acc": 1 / 8, "video_acc": 1 / 8, "step_acc": 1 / 4}
    assert result.baselines["all background"] == {"frame_acc": 0.5, "video_acc": 0.5, "step_acc": 0}
    assert result.per_query["frame_acc"].tolist() == [0.25, 0] and result.intervals["frame_acc"] == (0, 0.25)


def test_the_mean_over_videos_weighs_short_and_long_ones_alike():
    found = COINActionSegmentationMetric(EvalConfig(bootstrap=0))(
        Y_pred=np.ones(4), Y_true=np.array([1, 2, 2, 2]), lengths=[1, 3]
    )
    assert found["frame_acc"] == 0.25 and found["video_acc"] == 0.5


def test_every_share_has_an_interval_around_it_and_the_share_of_background_is_a_fact():
    rng = np.random.default_rng(0)
    true, pred = rng.integers(0, 3, (2, 400))
    result = COINActionSegmentationMetric(EvalConfig(bootstrap=200)).evaluate(
        Y_pred=pred, Y_true=true, lengths=[10] * 40
    )
    assert set(result.intervals) == {"frame_acc", "video_acc", "step_acc"}
    assert all(low < result.values[name] < high for name, (low, high) in result.intervals.items())
    assert result.values["step_acc"] == pytest.approx((pred == true)[true > 0].mean())
    assert result.facts["predicted as background"] == f"{(pred == 0).mean():.1%} of the seconds"


def test_lengths_that_do_not_add_up_are_refused():
    with pytest.raises(ValueError, match="expected one of each per second"):
        COINActionSegmentationMetric(EvalConfig())(Y_pred=np.ones(4), Y_true=np.ones(4), lengths=[1, 2])


def test_coin_labels_are_those_of_the_merged_windows():
    seconds = [0, 0, 3, 3, 3, 0, 5, 5, 5, 0, 1, 1, 2]
    batches = [windowed(part) | {"video_targets": torch.tensor([part])} for part in (seconds, seconds[:3])]
    arrays = COINPredictor(WINDOWS)(batches, Mirror())
    assert arrays["Y_pred"].tolist() == seconds + seconds[:3] == arrays["Y_true"].tolist()
    assert arrays["lengths"] == [13, 3]


def test_coin_zero_shot_names_the_ids_of_the_step_names():
    dataset = SimpleNamespace(
        meta_processor=SimpleNamespace(step_names={7: "chop", 9: "fry"}),
        text_processor=SimpleNamespace(tokenize=lambda name: [{"chop": 1, "fry": 2}[name]]),
        aligner=SimpleNamespace(
            pack=lambda ids: (torch.tensor(ids), torch.ones(len(ids), 1, dtype=torch.bool))
        ),
    )
    loader = Loader([windowed([0, 1, 1, 2, 4]) | {"video_targets": torch.tensor([[0, 7, 7, 9, 0]])}])
    loader.dataset = dataset
    arrays = COINZSPredictor(WINDOWS)(loader, Mirror())
    assert arrays["Y_pred"].tolist() == [0, 7, 7, 9, 0]
    assert dict(zip(arrays["step_ids"], arrays["step_names"], strict=True)) == {7: "chop", 9: "fry"}


def test_a_timeline_names_its_steps(tmp_path):
    pytest.importorskip("matplotlib")
    metric, arrays = COINActionSegmentationMetric(EvalConfig(bootstrap=0)), {"Y_true": [0, 7, 7, 4]}
    arrays |= {"Y_pred": [0, 7, 0, 4], "step_ids": [7, 9], "step_names": ["chop", "fry"]}
    (path,) = metric.plot(tmp_path, metric.evaluate(**arrays), **arrays)
    picture = path.with_suffix(".svg").read_text()
    assert ">chop</text>" in picture and ">step 4</text>" in picture and ">fry</text>" not in picture
