"""Each known mistake is recognised, named with its cure, and its absence is silent."""

import numpy as np
import pytest

from mmpt.config import EvalConfig
from mmpt.evaluators import RetrievalMetric, traps


def test_twenty_captions_per_video_as_gallery_are_named():
    scores = np.random.default_rng(0).normal(size=(60, 60))
    outcome = RetrievalMetric(EvalConfig(bootstrap=0)).evaluate(scores=scores, item_ids=[f"video{i // 20}" for i in range(60)])
    assert "20 captions for each" in outcome.warnings[0] and "MSRVTT_JSFUSION_test.csv" in outcome.warnings[0]


def test_a_clip_that_a_list_names_twice_is_no_case_of_all_captions():
    (warning,) = traps.repeated_items(1000, 999)
    assert "also stands under other rows" in warning and "20 per video" not in warning


def test_a_gallery_of_another_size_than_the_queries_is_named():
    outcome = RetrievalMetric(EvalConfig(bootstrap=0)).evaluate(scores=np.eye(3)[[0, 0, 1, 2]], targets=[0, 0, 1, 2])
    assert outcome.warnings == traps.unequal_sides(4, 3) != []


def test_features_of_another_rate_are_named():
    assert "one feature per 1.6 s" in traps.wrong_rate("features", [{"seconds_per_feature": 1.6}])[0]


@pytest.mark.parametrize(
    "trained",
    [
        {"data": {"train_path": "data/msrvtt/train.csv"}},
        {"project": "projects/retri/videoclip/youcook_videoclip.yaml"},
    ],
)
def test_a_fine_tuned_checkpoint_in_a_zero_shot_test_is_named(trained):
    (warning,) = traps.fine_tuned_as_zero_shot("projects/test_vtt_zs.yaml", "a.pt", trained)
    assert "a.pt was trained on" in warning and "pre-trained checkpoint" in warning


@pytest.mark.parametrize(
    ("source", "trained"),
    [
        ("test_vtt_ft.yaml", {"data": {"train_path": "data/msrvtt/train.csv"}}),
        ("test_vtt_zs.yaml", {"data": {"train_path": "how2_s3d_train.lst", "tfeat_dir": "how2."}, "project": "vtt.yaml"}),
        ("test_vtt_zs.yaml", {"project": "projects/retri/videoclip/how2.yaml"}),
        ("test_vtt_zs.yaml", {}),
    ],
)
def test_pre_training_and_fine_tuned_tests_pass(source, trained):
    assert traps.fine_tuned_as_zero_shot(source, "a.pt", trained) == []


def test_layers_without_weights_are_named():
    assert "lacks 4 tensors of the model (a, b, c, ...)" in traps.unloaded_layers("a.pt", list("abcd"))[0]


def test_nothing_is_said_where_nothing_is_wrong():
    assert traps.repeated_items(5, 5) == traps.unequal_sides(3, 3) == traps.unloaded_layers("a.pt", []) == []
    assert traps.wrong_rate("f", [{"seconds_per_feature": 1.0}, {}]) == traps.wrong_rate("f", []) == []
