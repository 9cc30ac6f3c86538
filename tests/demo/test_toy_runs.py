"""Moving project files to other folders, and run folders that know their settings."""

from __future__ import annotations

import pytest

from mmpt.config import load_config
from mmpt.demo.toy_runs import PROJECTS, claim, finish, move_folders, set_length


def test_every_path_of_a_project_file_moves():
    path = PROJECTS / "norton.yaml"
    config = load_config(path, move_folders(path, {"data/toy": "elsewhere", "runs/toy": "out"}))
    assert (
        config.dataset.tfeat_dir == "elsewhere/how2/feat/narration."
        and config.fairseq["checkpoint"]["save_dir"] == "out/norton"
    )
    assert "data/toy" not in str(config)


def test_folders_that_only_begin_alike_stay(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("dataset: {train_path: data/toys/x, val_path: data/toy/y}\n")
    assert move_folders(path, {"data/toy": "new"}) == ["dataset.val_path=new/y"]


def test_a_length_sets_schedule_and_warm_up():
    assert set_length(40) == [
        "fairseq.optimization.max_update=40",
        "fairseq.optimization.total_num_update=40",
        "fairseq.optimization.warmup_updates=2",
    ]


def test_a_folder_is_claimed_until_it_is_finished(tmp_path):
    settings = {"lr": 1, "sizes": (1, 2)}
    assert claim(tmp_path / "run", settings)
    assert claim(tmp_path / "run", settings)  # stopped and started again
    finish(tmp_path / "run", settings)
    assert not claim(tmp_path / "run", settings)


def test_a_folder_of_other_settings_is_refused(tmp_path):
    claim(tmp_path, {"lr": 1})
    with pytest.raises(SystemExit, match="other settings"):
        claim(tmp_path, {"lr": 2})
