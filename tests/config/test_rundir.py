"""Run folders: numbering."""

from __future__ import annotations

import pytest

from mmpt.config import load_config
from mmpt.config.rundir import tensorboard_dir

YAML = """
dataset: {{train_path: a.lst, subsampling: 4, mm_prob: 0.5}}
model: {{model_cls: MMFusionSeparate, mm_encoder_cls: null}}
loss: {{loss_cls: MMContraLoss}}
fairseq: {{common: {{tensorboard_logdir: run}}, dataset: {{batch_size: 8}}, checkpoint: {{save_dir: {}}}}}
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(YAML.format(tmp_path / "runs" / "a"))
    return load_config(path)


def test_the_first_run_is_number_zero_and_nothing_is_created(config, tmp_path):
    assert tensorboard_dir(config) == str(tmp_path / "runs/a/run_0")
    assert not (tmp_path / "runs").exists()


def test_the_next_run_comes_after_the_highest_number_and_odd_names_do_not_count(config, tmp_path):
    for name in ("run_2", "run_10", "run_tmp", "run_3_old", "rerun_50"):
        (tmp_path / "runs/a" / name).mkdir(parents=True)
    assert tensorboard_dir(config) == str(tmp_path / "runs/a/run_11")


def test_a_name_that_is_a_path_is_counted_in_its_own_folder(config, tmp_path):
    (tmp_path / "curves/run_4").mkdir(parents=True)
    own = load_config(tmp_path / "x.yaml", [f"fairseq.common.tensorboard_logdir={tmp_path}/curves/run"])
    assert tensorboard_dir(own) == str(tmp_path / "curves/run_5")


def test_without_a_tensorboard_key_there_is_no_folder(tmp_path):
    (tmp_path / "x.yaml").write_text("task: Task\n")
    assert tensorboard_dir(load_config(tmp_path / "x.yaml")) is None
