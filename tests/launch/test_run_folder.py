"""A run folder belongs to one experiment."""

from __future__ import annotations

import json

import pytest

from mmpt.config import ConfigError, load_config
from mmpt.launch.run_folder import RunFolder

YAML = """
dataset: {{train_path: {0}/a.lst, vfeat_dir: {0}/feat, subsampling: 4, mm_prob: 0.5}}
model: {{model_cls: MMFusionSeparate, mm_encoder_cls: null}}
loss: {{loss_cls: MMContraLoss}}
fairseq:
  common: {{tensorboard_logdir: run, fp16: true, seed: 1}}
  dataset: {{batch_size: 8}}
  optimization: {{max_update: 10, lr: [0.1]}}
  optimizer: {{optimizer: adam}}
  checkpoint: {{save_dir: {0}/runs/a, restore_file: {0}/start.pt}}
"""


@pytest.fixture
def start(tmp_path):
    """A start with some settings; `trained` says whether the folder has a checkpoint by then."""
    (tmp_path / "x.yaml").write_text(YAML.format(tmp_path))
    (tmp_path / "a.lst").write_text("one\ntwo\n")
    (tmp_path / "start.pt").write_bytes(b"weights")
    (tmp_path / "feat").mkdir()
    for shard in range(3):
        (tmp_path / f"feat/train_{shard}_data.npy").write_bytes(bytes([shard]) * 3_000_000)

    def begin(*settings, accept=()):
        folder = RunFolder(load_config(tmp_path / "x.yaml", settings))
        folder.open(accept)
        (folder.path / "checkpoint_last.pt").touch()
        return folder

    return begin


def test_the_resolved_file_loads_back_to_the_same_configuration(start):
    folder = start()
    again = load_config(folder.path / "config.yaml")
    for section in ("dataset", "model", "loss", "fairseq"):
        assert getattr(again, section) == getattr(folder.config, section)


@pytest.mark.parametrize(
    ("setting", "shown"),
    [
        ("loss.loss_cls=TempCLRLoss", "loss.loss_cls: MMContraLoss before, TempCLRLoss now"),
        ("fairseq.common.seed=2", "fairseq.common.seed: 1 before, 2 now"),
        ("fairseq.optimization.lr=[0.2]", "fairseq.optimization.lr: [0.1] before, [0.2] now"),
        ("fairseq.common.fp16=false", "fairseq.common.fp16: True before, nothing now"),
        ("dataset.max_len=96", "dataset.max_len: nothing before, 96 now"),
        ("fairseq.dataset.batch_size=4", "fairseq.dataset.batch_size: 8 before, 4 now"),
    ],
)
def test_another_experiment_is_refused_with_keys_values_and_both_cures(start, setting, shown):
    folder = start()
    stored = (folder.path / "config.yaml").read_text()
    with pytest.raises(ConfigError) as refused:
        start(setting)
    assert shown in str(refused.value)
    assert "--set fairseq.checkpoint.save_dir=FOLDER" in str(refused.value)
    assert f"--accept-changes {setting.partition('=')[0]}" in str(refused.value)
    assert (folder.path / "config.yaml").read_text() == stored
    assert len(folder.history()) == 1


@pytest.mark.parametrize(
    "setting",
    [
        "fairseq.common.log_interval=7",
        "fairseq.dataset.num_workers=9",
        "fairseq.optimization.max_update=20",
        "fairseq.checkpoint.save_interval_updates=3",
        "fairseq.checkpoint.reset_optimizer=true",
        "model.compile=true",
        "job.timeout=60",
        "eval.bootstrap=0",
        "fairseq.common.bf16=false",
    ],
)
def test_how_a_job_is_run_watched_and_ended_may_change(start, setting):
    folder = start()
    stored = (folder.path / "config.yaml").read_text()
    start(setting)
    assert (folder.path / "config.yaml").read_text() == stored
    assert [entry["event"] for entry in folder.history()] == ["began", "went on"]


def test_an_accepted_change_is_kept_in_the_history_and_is_the_experiment_from_then_on(start):
    start()
    folder = start("loss.loss_cls=TempCLRLoss", accept=["loss"])
    entry = folder.history()[-1]
    assert entry["accepted"] == ["loss.loss_cls"]
    assert entry["changes"]["loss.loss_cls"] == ["MMContraLoss", "TempCLRLoss"]
    start("loss.loss_cls=TempCLRLoss")
    with pytest.raises(ConfigError, match="loss.loss_cls: TempCLRLoss before, MMContraLoss now"):
        start()


def test_another_loss_is_accepted_by_the_name_of_its_section(start):
    start("loss.alpha_lse=2", "loss.beta=0.1", "loss.sinkhorn_iterations=3")
    with pytest.raises(ConfigError, match="--accept-changes loss$"):
        start("loss.loss_cls=TempCLRLoss")


def test_another_number_of_processes_is_told_unless_the_batches_stay_the_same(start, caplog):
    folder = start()
    folder.open(processes=2)
    assert "1 processes trained here before, 2 go on" in caplog.text


def test_a_folder_in_which_nothing_was_trained_belongs_to_whoever_starts_next(start):
    folder = start()
    (folder.path / "checkpoint_last.pt").unlink()
    start("loss.loss_cls=TempCLRLoss")
    assert load_config(folder.path / "config.yaml").loss["loss_cls"] == "TempCLRLoss"
    assert [entry["event"] for entry in folder.history()] == ["began"]


def test_the_same_content_under_another_path_is_the_same(start, tmp_path):
    start()
    (tmp_path / "feat").rename(tmp_path / "moved")
    (tmp_path / "a.lst").rename(tmp_path / "b.lst")
    folder = start(f"dataset.vfeat_dir={tmp_path}/moved", f"dataset.train_path={tmp_path}/b.lst")
    assert [entry["event"] for entry in folder.history()] == ["began", "went on"]


@pytest.mark.parametrize("key", ["dataset.vfeat_dir", "dataset.train_path", "restore_file"])
def test_other_content_under_the_same_path_is_another_experiment(start, tmp_path, key):
    start()
    if key == "dataset.vfeat_dir":
        shard = tmp_path / "feat/train_1_data.npy"
        shard.write_bytes(b"\7" * shard.stat().st_size)
    elif key == "dataset.train_path":
        (tmp_path / "a.lst").write_text("two\none\n")
    else:
        (tmp_path / "start.pt").write_bytes(b"other weights")
    with pytest.raises(ConfigError, match=rf"{key}: .* holds something else than before"):
        start()
    start(accept=["dataset", "fairseq.checkpoint.restore_file"])
    start()


@pytest.mark.parametrize("changed", ["base.yaml", "b.lst"])
def test_what_a_mixed_set_includes_and_reads_is_of_the_experiment(start, tmp_path, changed):
    (tmp_path / "b.lst").write_text("three\n")
    (tmp_path / "base.yaml").write_text(f"dataset: {{train_path: {tmp_path}/b.lst}}\n")
    (tmp_path / "set.yaml").write_text(
        f"includes: {tmp_path}/base.yaml\nfairseq: {{dataset: {{batch_size: 2}}}}\n"
    )
    mixed = "task=MixedTask", f"mix={{b: {{project: {tmp_path}/set.yaml}}}}"
    start(*mixed)
    start(*mixed)
    with open(tmp_path / changed, "a") as file:
        file.write("\n# other\n")
    with pytest.raises(ConfigError, match=r"mix.b.project: .* holds something else than before"):
        start(*mixed)


def test_files_that_change_between_epochs_are_named(start, tmp_path):
    folder = start()
    folder.check_files()
    path = tmp_path / "feat/train_1_data.npy"
    path.write_bytes(path.read_bytes())  # a copy of the same
    folder.check_files()
    path.write_bytes(bytes(3_000_000))
    with pytest.raises(ConfigError, match=r"dataset.vfeat_dir: .*feat holds .* train_1_data.npy"):
        folder.check_files()


def test_further_files_in_a_folder_and_weights_that_are_gone_change_nothing(start, tmp_path):
    start()
    (tmp_path / "feat/train_9_data.npy").write_bytes(b"x")
    (tmp_path / "start.pt").unlink()
    assert [entry["event"] for entry in start().history()] == ["began", "went on"]


def test_a_training_set_of_another_size_is_another_experiment(start):
    start().check_items(100)
    start().check_items(100)
    with pytest.raises(ConfigError, match="had 100 items, now there are 90"):
        start().check_items(90)
    start().check_items(90, accept=["dataset"])
    start().check_items(90)


def test_a_line_of_history_that_a_crash_cut_off_costs_no_other(start):
    folder = start()
    with open(folder.path / "history.jsonl", "a") as file:
        file.write('{"event": "went o')
    start("fairseq.common.log_interval=3")
    assert [entry["event"] for entry in folder.history()] == ["began", "went on"]
    assert json.loads((folder.path / "history.jsonl").read_text().splitlines()[-1])["changes"]


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "runs").touch()
    (tmp_path / "x.yaml").write_text(YAML.format(tmp_path))
    with pytest.raises(ConfigError, match=r"fairseq\.checkpoint\.save_dir=.*/runs/a: .*make it writable"):
        RunFolder(load_config(tmp_path / "x.yaml")).open()
    with pytest.raises(ConfigError, match="make it writable"):
        RunFolder(load_config(tmp_path / "x.yaml")).check_before()


def test_a_file_without_save_dir_is_refused(tmp_path):
    (tmp_path / "x.yaml").write_text(
        "dataset: {train_path: a}\nmodel: {model_cls: MMFusionSeparate}\nloss: {loss_cls: MMContraLoss}\n"
    )
    with pytest.raises(ConfigError, match=r"fairseq\.checkpoint\.save_dir is missing"):
        RunFolder(load_config(tmp_path / "x.yaml"))
