"""Step localisation: golden numbers, the whole way from window logits to recall."""

import numpy as np
import pytest
import torch

from mmpt.config import EvalConfig
from mmpt.evaluators import CrossTaskMetric, CrossTaskPredictor
from mmpt.evaluators.tasks import crosstask
from mmpt.evaluators.tasks.crosstask import place_steps
from mmpt.ops.windows import merge_windows
from tests.conftest import golden_cases, load_golden
from tests.evaluators.mirror import WINDOWS, D, Mirror, windowed


@pytest.mark.parametrize("path", golden_cases("norton_metrics*.npz"))
def test_golden_norton_metrics_crosstask(path):
    arrays = load_golden(path)
    videos = sorted(
        name.removeprefix("crosstask_true_") for name in arrays if name.startswith("crosstask_true_")
    )
    found = CrossTaskMetric(EvalConfig())(
        tasks=[video.split("_")[0] for video in videos],
        Y_pred=[arrays[f"crosstask_pred_{video}"] for video in videos],
        Y_true=[arrays[f"crosstask_true_{video}"] for video in videos],
    )
    assert found["recall"] == pytest.approx(float(arrays["crosstask_recall"]))
    per_task = [found[f"t{task}-recall"] for task in range(len(arrays["crosstask_recall_per_task"]))]
    np.testing.assert_allclose(per_task, arrays["crosstask_recall_per_task"], rtol=1e-6)


@pytest.mark.parametrize("path", golden_cases("tempclr_crosstask_eval*.npz"))
def test_golden_tempclr_crosstask_eval(path):
    arrays = load_golden(path)
    for i in range(int(arrays["n_cases"])):
        window = int(arrays[f"c{i}_sliding_window"]), int(arrays[f"c{i}_sliding_window_size"])
        videos = sorted({name.split("_")[1] for name in arrays if name.startswith(f"c{i}_v")})
        tasks, pred, true = [], [], []
        for video in videos:
            case = {
                name.removeprefix(f"c{i}_{video}_"): value
                for name, value in arrays.items()
                if name.startswith(f"c{i}_{video}_")
            }
            logits = merge_windows(torch.as_tensor(case["window_logits"]), int(case["video_len"]), *window)
            np.testing.assert_allclose(logits, case["logits"], rtol=1e-6, atol=1e-6)
            tasks.append(str(case["task"]))
            pred.append(place_steps(logits))
            true.append(case["true"])
            np.testing.assert_array_equal(pred[-1], case["pred"])
        found = CrossTaskMetric(EvalConfig(bootstrap=0))(tasks=tasks, Y_pred=pred, Y_true=true)
        assert found["recall"] == pytest.approx(float(arrays[f"c{i}_recall"]))
        for task in set(tasks):
            assert found[f"{task}-recall"] == pytest.approx(float(arrays[f"c{i}_recall_task_{task}"]))


def one_hot(seconds, n_seconds=10):
    placed = np.zeros((n_seconds, len(seconds)), np.uint8)
    placed[seconds, np.arange(len(seconds))] = 1
    return placed


def test_a_task_without_annotated_steps_is_left_out_and_counted():
    result = CrossTaskMetric(EvalConfig(bootstrap=30)).evaluate(
        tasks=["a", "b"], Y_pred=[one_hot([1, 5]), one_hot([1])], Y_true=[one_hot([1, 6]), np.zeros((10, 1))]
    )
    assert result.values == {"recall": 0.5, "a-recall": 0.5}
    assert result.facts == {"videos": 2, "tasks": 1, "tasks without annotated steps": 1}


def test_steps_spread_evenly_are_the_trivial_model():
    true = np.zeros((10, 2), np.uint8)
    true[0:4, 0] = true[8:10, 1] = 1
    result = CrossTaskMetric(EvalConfig(bootstrap=0)).evaluate(
        tasks=["a"], Y_pred=[one_hot([0, 9])], Y_true=[true]
    )
    assert result.values["recall"] == 1 and result.baselines["evenly spread"]["recall"] == 0.5


def test_fewer_seconds_than_steps_is_an_error():
    with pytest.raises(ValueError, match="cannot place 3 steps"):
        place_steps(torch.zeros(2, 3))


def test_no_annotated_step_at_all_is_an_error():
    with pytest.raises(ValueError, match="no video has an annotated step"):
        CrossTaskMetric(EvalConfig())(tasks=["a"], Y_pred=[one_hot([1])], Y_true=[np.zeros((10, 1))])


def test_crosstask_steps_are_placed_in_order():
    seconds = [4, 0, 4, 1, 4, 2, 3, 4, 4, 5, 4, 4]
    batch = windowed(seconds)
    targets = batch["vfeats"][0][batch["vmasks"][0]]
    arrays = CrossTaskPredictor(WINDOWS)(
        [
            batch
            | {
                "targets": targets[None],
                "task": ["t"],
                "step_names": [("chop", "fry")],
                "vfeats": 9 * batch["vfeats"],
            }
        ],
        Mirror(),
    )
    assert arrays["tasks"] == ["t"] and arrays["Y_true"][0].argmax(1).tolist() == seconds
    assert arrays["Y_pred"][0].sum(0).tolist() == [1] * D and np.diff(arrays["Y_pred"][0].argmax(0)).min() > 0


def test_the_timeline_names_the_steps(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        crosstask, "plot_timeline", lambda path, true, pred, names, title: drawn.append(names)
    )
    metric = CrossTaskMetric(EvalConfig(bootstrap=0))
    arrays = {"tasks": ["a"], "Y_pred": [one_hot([1, 5])], "Y_true": [one_hot([1, 6])]}
    result = metric.evaluate(**arrays)
    metric.plot(tmp_path, result, **arrays, steps=np.array(["pour milk\nstir"]))
    metric.plot(tmp_path, result, **arrays)
    assert drawn == [["pour milk", "stir"], ["step 1", "step 2"]]


def test_the_span_of_a_step_ends_with_its_last_second_and_is_none_where_it_is_not_shown():
    labels = np.zeros((9, 3), dtype=bool)
    labels[[2, 3, 6], 0] = labels[8, 1] = True
    np.testing.assert_array_equal(crosstask._spans(labels), [[2, 7], [8, 9], [np.nan, np.nan]])
