"""The fairseq section becomes flags."""

from __future__ import annotations

import pytest

from mmpt.config import ConfigError
from mmpt.config.build import build_config
from mmpt.config.fairseq_args import Share, batch_size, fairseq_args, share


def flags(dataset: dict | None = None, logdir: str | None = None, **groups: dict) -> list[str]:
    return fairseq_args(build_config({"fairseq": groups, "dataset": dataset or {}}, "x.yaml"), logdir)


def test_true_gives_the_bare_flag_and_false_and_null_give_nothing():
    assert flags(common={"fp16": True, "bf16": False, "cpu": None}) == ["--fp16"]


def test_reset_flags_follow_their_value():
    assert flags(checkpoint={"reset_optimizer": False, "reset_meters": True}) == ["--reset-meters"]


def test_a_zero_is_a_value():
    assert flags(optimization={"weight_decay": 0.0, "warmup_updates": 0}) == [
        "--weight-decay",
        "0.0",
        "--warmup-updates",
        "0",
    ]


def test_one_learning_rate_is_a_number_and_several_are_a_list():
    assert flags(optimization={"lr": [5e-5]}) == ["--lr", "5e-05"]
    assert flags(optimization={"lr": [5e-5, 1e-5]}) == ["--lr", "[5e-05, 1e-05]"]


def test_a_tuple_stays_one_word():
    assert flags(optimization={"adam_betas": "(0.9, 0.98)"}) == ["--adam-betas", "(0.9, 0.98)"]


def test_the_order_is_that_of_the_file():
    assert flags(b={"y_z": 1, "x": 2}, a={"w": 3}) == ["--y-z", "1", "--x", "2", "--w", "3"]


def test_fairseq_reads_the_lists_back():
    utils = pytest.importorskip("fairseq.utils")
    assert utils.eval_str_list(flags(optimization={"lr": [5e-5, 1e-5]})[1]) == [5e-5, 1e-5]
    assert utils.eval_str_list(flags(optimization={"lr": [5e-5]})[1]) == [5e-5]
    assert utils.eval_str_list(flags(optimization={"update_freq": [4, 2]})[1], int) == [4, 2]


def test_fairseq_knows_no_boolean_that_is_on_by_default():
    """Leaving a flag out for `false` is right only while every boolean of the trainer is off by default."""
    options = pytest.importorskip("fairseq.options")
    kinds = {type(action).__name__ for action in options.get_training_parser()._actions}
    assert "_StoreFalseAction" not in kinds


@pytest.mark.parametrize(
    ("size", "subsampling", "expected"), [(256, 32, 8), (1, 1, 1), (8, 32, 1), (7, None, 7), (None, 4, None)]
)
def test_batch_size_counts_clips_and_never_becomes_zero(size, subsampling, expected):
    config = build_config(
        {"fairseq": {"dataset": {"batch_size": size}}, "dataset": {"subsampling": subsampling}}, "x.yaml"
    )
    assert batch_size(config) == expected


def test_the_adjusted_batch_size_is_what_fairseq_gets():
    config = build_config(
        {"fairseq": {"dataset": {"batch_size": 256}}, "dataset": {"subsampling": 32}}, "x.yaml"
    )
    assert fairseq_args(config) == ["--batch-size", "8"]


def test_the_run_folder_replaces_the_tensorboard_name():
    assert flags(common={"tensorboard_logdir": "run"}, logdir="runs/a/run_0") == [
        "--tensorboard-logdir",
        "runs/a/run_0",
    ]


LOCAL, JOINED = {"loss_cls": "MMContraLoss"}, {"loss_cls": "MMContraLoss", "global_negatives": True}
GRAM, GRAM_LOCAL = {"loss_cls": "GRAMLoss"}, {"loss_cls": "GRAMLoss", "gather": "local"}
MIXED = {"loss_cls": "SumLoss", "losses": [JOINED, LOCAL]}


def shared(loss, processes, size=4, whole=24, subsampling=None, **optimization):
    tree = {
        "fairseq": {"dataset": {"batch_size": size}, "optimization": optimization},
        "dataset": {"global_batch": whole, "subsampling": subsampling},
        "loss": loss,
    }
    return build_config(tree, "x.yaml"), processes


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (shared(LOCAL, 1), Share(24, 4, 6)),
        (shared(LOCAL, 3), Share(24, 4, 2)),
        (shared(LOCAL, 6), Share(24, 4, 1)),
        (shared(LOCAL, 2, size=None), Share(24, 12, 1)),
        (shared(JOINED, 1), Share(24, 24, 1)),
        (shared(JOINED, 12), Share(24, 2, 1)),
        (shared(GRAM, 4), Share(24, 6, 1)),
        (shared(GRAM_LOCAL, 3), Share(24, 4, 2)),
        (shared(LOCAL, 2, size=64, whole=256, subsampling=32), Share(8, 2, 2)),
        (shared(LOCAL, 5, whole=None), None),
    ],
)
def test_processes_share_a_global_batch_whole_where_the_loss_joins_them_and_in_its_batches_elsewhere(
    given, expected
):
    assert share(*given) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (shared(JOINED, 5), "24 items, which 5 processes cannot share. Start 1, 2, 3, 4, 6, 8, 12 or 24"),
        (shared(LOCAL, 4), "batch_size=4 .4 items. does not divide"),
        (shared(JOINED, 2, update_freq=[4]), "Remove fairseq.optimization.update_freq"),
        (shared(MIXED, 2), "MMContraLoss does not"),
    ],
)
def test_what_cannot_be_shared_is_refused_with_what_can(given, message):
    with pytest.raises(ConfigError, match=message):
        share(*given)


def test_the_flags_follow_the_share_and_validation_keeps_its_batches():
    config, _ = shared(LOCAL, 3)
    flags = ["--batch-size", "4", "--batch-size-valid", "4", "--update-freq", "2"]
    assert fairseq_args(config, processes=3) == flags
