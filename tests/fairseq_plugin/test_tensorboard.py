"""What TensorBoard is given."""

import logging

import numpy as np
import pytest
from fairseq.logging import progress_bar

from mmpt.fairseq_plugin.tensorboard import GroupedCurves, PlanPictures, grouped
from tests.conftest import ROOT

pytest.importorskip("tensorboardX")


@pytest.mark.parametrize(
    ("name", "curve"),
    [
        ("loss", "loss/total"),
        ("text_to_video", "loss/text_to_video"),
        ("seen/GRAMLoss", "loss/seen/GRAMLoss"),
        ("zero_shot_R1", "zero_shot/R1"),
        ("best_zero_shot_R1", "zero_shot/best_R1"),
        ("best_loss", "run/best_loss"),
        ("lr", "optimizer/lr"),
        ("slowest_data_s", "run/slowest_data_s"),
        ("num_updates", "num_updates"),
    ],
)
def test_a_curve_stands_in_its_group(name, curve):
    assert grouped(name) == curve


def test_losses_come_first_in_the_order_of_groups():
    groups = {grouped(name).split("/")[0] for name in ("loss", "lr", "ups", "zero_shot_R1", "uncaptioned")}
    assert sorted(groups)[0] == "loss"


def test_curves_and_settings_are_written(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(progress_bar, "_tensorboard_writers", {})
    bar = GroupedCurves(progress_bar.SimpleProgressBar([]), str(tmp_path))
    config = {
        "args": {"taskconfig": "projects/toy/norton.yaml", "overrides": []},
        "optimization": {"lr": [1e-3], "max_update": 5},
    }
    for _ in range(2):
        bar.update_config(config)
    bar.log({"loss": 2.5, "lr": 1e-3, "num_updates": 3}, tag="train_inner", step=3)
    progress_bar._close_writers()
    (file,) = (tmp_path / "train_inner").iterdir()
    written = file.read_bytes()
    assert written.count(b"_hparams_/experiment") == 1 and b"MMContraLoss" in written
    assert b"loss/total" in written and b"optimizer/lr" in written and b"num_updates" not in written


def test_a_plan_is_a_picture_at_each_validation(tmp_path, monkeypatch):
    monkeypatch.setattr(progress_bar, "_tensorboard_writers", {})
    pytest.importorskip("PIL")
    plans = PlanPictures(str(tmp_path), lambda: ("v1", np.zeros((4, 6, 3), np.uint8)))
    for update in (10, 20):
        plans.add(update)
    progress_bar._close_writers()
    (file,) = (tmp_path / "valid").iterdir()
    assert file.read_bytes().count(b"transport_plan/v1") == 2 == file.read_bytes().count(b"\x89PNG")


def test_where_no_plan_can_be_drawn_the_log_says_why_once(tmp_path, caplog):
    def refuse():
        raise FileNotFoundError("no list of validation videos")

    plans = PlanPictures(str(tmp_path), refuse)
    with caplog.at_level(logging.INFO):
        plans.add(10), plans.add(20)
    assert caplog.text.count("no list of validation videos") == 1 and not list(tmp_path.iterdir())
