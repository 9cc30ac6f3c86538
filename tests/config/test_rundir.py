"""Run folders: numbering, the resolved config.yaml, rank 0 alone."""

from __future__ import annotations

import pytest

from mmpt.config import ConfigError, load_config
from mmpt.config.rundir import create_run_dir, tensorboard_dir

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


def test_without_a_tensorboard_key_there_is_no_folder(tmp_path):
    (tmp_path / "x.yaml").write_text("task: Task\n")
    assert tensorboard_dir(load_config(tmp_path / "x.yaml")) is None


def test_the_resolved_file_loads_back_to_the_same_configuration(config):
    folder = create_run_dir(config)
    again = load_config(folder / "config.yaml")
    assert (again.dataset, again.model, again.loss, again.fairseq) == (
        config.dataset,
        config.model,
        config.loss,
        config.fairseq,
    )


def test_writing_leaves_no_second_file(config):
    create_run_dir(config)
    assert [path.name for path in create_run_dir(config).iterdir()] == ["config.yaml"]


def test_other_ranks_create_nothing(config, tmp_path):
    assert create_run_dir(config, rank=1) is None
    assert not (tmp_path / "runs").exists()


def test_a_file_without_save_dir_is_refused(tmp_path):
    (tmp_path / "x.yaml").write_text(
        "dataset: {train_path: a}\nmodel: {model_cls: MMFusionSeparate}\nloss: {loss_cls: MMContraLoss}\n"
    )
    with pytest.raises(ConfigError, match=r"fairseq\.checkpoint\.save_dir is missing"):
        create_run_dir(load_config(tmp_path / "x.yaml"))
