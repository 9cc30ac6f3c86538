"""Values that must fit together."""

from __future__ import annotations

import pytest

from mmpt.config import ConfigError
from mmpt.config.build import build_config
from mmpt.config.checks import check_config, check_training

SEQUENCES = {
    "loss_cls": "MMContraLoss",
    "sequence_contrast": {"sequence_contrast_weight": 0.1, "threshold": 8},
}
TRAINABLE = {
    "dataset": {"train_path": "a.lst"},
    "model": {"model_cls": "M"},
    "loss": {"loss_cls": "L"},
    "fairseq": {"checkpoint": {"save_dir": "runs/a"}},
}


def refused(tree: dict, check=check_config) -> str:
    with pytest.raises(ConfigError) as caught:
        check(build_config(tree, "x.yaml"))
    return str(caught.value)


def test_clips_that_do_not_fill_whole_sequences_are_refused_with_the_cure():
    assert refused({"dataset": {"clip_per_video": 15}, "loss": SEQUENCES}) == (
        "x.yaml: dataset.clip_per_video=15 is not a multiple of loss.sequence_contrast.threshold=8; "
        "sequences need whole groups. Use 16."
    )


def test_subsampling_counts_where_clip_per_video_is_missing():
    assert "dataset.subsampling=12 is not a multiple" in refused(
        {"dataset": {"subsampling": 12}, "loss": SEQUENCES}
    )


@pytest.mark.parametrize("weight", [None, 0])
def test_sequence_length_does_not_matter_where_the_sequence_loss_is_off(weight):
    section = {"sequence_contrast_weight": weight, "threshold": 8}
    assert (
        check_config(
            build_config(
                {"dataset": {"clip_per_video": 15}, "loss": {"sequence_contrast": section}}, "x.yaml"
            )
        )
        is None
    )


@pytest.mark.parametrize("flag", ["fp16", "bf16"])
def test_half_precision_on_the_cpu_is_refused_with_the_cure(flag):
    message = refused({"fairseq": {"common": {"cpu": True, flag: True}}})
    assert f"fairseq.common.{flag}: true does not run beside fairseq.common.cpu: true" in message
    assert f"Set fairseq.common.{flag}: false" in message


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ({"clip_per_video": 0}, "dataset.clip_per_video: expected a finite number and at least 1, got 0."),
        ({"subsampling": -1}, "dataset.subsampling: expected a finite number and at least 1, got -1."),
        (
            {"sampled_min_len": 9, "sampled_max_len": 8},
            "dataset.sampled_min_len=9 is larger than dataset.sampled_max_len=8",
        ),
        (
            {"mm_prob": 1.5},
            "dataset.mm_prob: expected a finite number and at least 0 and at most 1, got 1.5.",
        ),
        ({"max_len": 35, "max_video_len": 32}, "Use at least 36"),
    ],
)
def test_impossible_sizes_are_refused(dataset, message):
    assert message in refused({"dataset": dataset})


def test_zero_isolated_layers_are_fine():
    assert check_config(build_config({"dataset": {"num_iso_layer": 0}}, "x.yaml")) is None


def test_all_problems_come_at_once():
    assert len(refused({"dataset": {"mm_prob": 2, "keep_prob": -1, "dup": 0}}).splitlines()) == 3


def test_a_complete_training_file_passes():
    assert check_training(build_config(TRAINABLE, "x.yaml")) is None


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("fairseq", "fairseq.checkpoint.save_dir"),
        ("dataset", "dataset.train_path"),
        ("model", "model.model_cls"),
        ("loss", "loss.loss_cls"),
    ],
)
def test_training_names_each_thing_it_lacks(section, key):
    tree = {name: value for name, value in TRAINABLE.items() if name != section}
    assert f"x.yaml: {key} is missing" in refused(tree, check_training)


def test_training_from_a_test_file_is_refused():
    assert "Use --jobtype local_predict" in refused({"dataset": {"split": "test"}}, check_training)


def test_windows_must_be_merged_as_they_were_cut():
    tree = {"dataset": {"sliding_window": 8}, "loss": {"loss_cls": "L", "sliding_window": 16}}
    assert "loss.sliding_window=16 differs from dataset.sliding_window=8" in refused(tree)
    tree["loss"] = {
        "loss_cls": "SumLoss",
        "losses": [{"loss_cls": "A"}, {"loss_cls": "L", "sliding_window": 4}],
    }
    assert "loss.losses[1].sliding_window=4 differs" in refused(tree)
    check_config(
        build_config(
            {"dataset": {"sliding_window": 8}, "loss": {"loss_cls": "L", "sliding_window": 8}}, "x.yaml"
        )
    )
