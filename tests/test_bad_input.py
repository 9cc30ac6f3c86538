"""Bad input ends in one clear error that names what is wrong and how to cure it, and loses nothing."""

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt.config import ConfigError, load_config
from mmpt.models import build_model
from mmpt.registry import UnknownName
from mmpt.tasks import build_task
from mmpt_cli.main_job import moved
from tests.conftest import ROOT


@pytest.fixture
def world(toy_world, tmp_path) -> Path:
    """A copy of the tiny world that a test may spoil."""
    return Path(shutil.copytree(toy_world, tmp_path / "toy"))


def settings(world: Path, *more: str) -> list[str]:
    from mmpt.config import recursive_config

    tree = recursive_config(ROOT / "projects/toy/norton.yaml")
    paths = [f"{key}={value}" for key, value in moved(tree, {"data/toy": str(world), "runs/toy": str(world / "runs")})]
    return [*paths, "dataset.num_video_per_batch=8", *more]


def config(world: Path, *more: str):
    return load_config(ROOT / "projects/toy/norton.yaml", settings(world, *more))


def first_item(world: Path, *more: str):
    return build_task(config(world, *more)).build_dataset("train")[0]


def test_a_misspelt_key_is_refused_with_file_and_nearest_key(tmp_path):
    (tmp_path / "x.yaml").write_text("dataset:\n  max_vido_len: 16\n")
    with pytest.raises(ConfigError, match=r"x.yaml: dataset.max_vido_len: unknown key. Did you mean dataset.max_video_len\?"):
        load_config(tmp_path / "x.yaml")


def test_a_misspelt_loss_key_is_refused_with_the_nearest_one(world):
    with pytest.raises(ValueError, match="loss .*betta: unknown key; did you mean 'beta'"):
        build_task(config(world, "loss.betta=0.5"))


@pytest.mark.parametrize(
    "key, near", [("loss.loss_cls=MMContraLos", "MMContraLoss"), ("task=VideoRetriTsk", "VideoRetriTask"), ("model.model_cls=MMFusionSeperate", "MMFusionSeparate")]
)
def test_a_misspelt_class_is_refused_with_the_nearest_one(world, key, near):
    with pytest.raises(UnknownName, match=f"Did you mean .*{near}"):
        build_task(config(world, key)).build_model()


def test_a_misspelt_path_is_named(world):
    with pytest.raises((FileNotFoundError, ValueError), match="nowhere.lst"):
        first_item(world, f"dataset.train_path={world}/nowhere.lst")


def test_an_empty_list_is_named(world):
    (world / "how2/how2_s3d_train.lst").write_text("")
    with pytest.raises(ValueError, match="how2_s3d_train.lst"):
        first_item(world)


def test_clips_that_do_not_fill_sequences_are_refused_with_a_number_that_works(world):
    with pytest.raises(ConfigError, match="dataset.clip_per_video=15 is not a multiple of loss.sequence_contrast.threshold=8.* Use 16"):
        config(world, "dataset.clip_per_video=15")


def test_a_truncated_shard_is_refused_by_name(world):
    shard = world / "how2/feat/train_0_data.npy"
    os.truncate(shard, shard.stat().st_size // 2)
    with pytest.raises(ValueError, match="train_0_data.npy: truncated or damaged"):
        dataset = build_task(config(world)).build_dataset("train")
        [dataset[i] for i in range(len(dataset))]


def test_features_with_nan_are_refused_by_the_video(world):
    shard = world / "how2/feat/train_0_data.npy"
    np.load(shard, mmap_mode="r+")[:, 3] = np.nan
    with pytest.raises(ValueError, match=r"train\d+.*(NaN|finite)"):
        dataset = build_task(config(world)).build_dataset("train")
        [dataset[i] for i in range(len(dataset))]


class Evil:
    def __reduce__(self):
        return print, ("code of a stranger runs",)


def test_an_index_that_would_run_code_is_refused_by_name(world, capsys):
    path = world / "how2/feat/train_meta.pkl"
    path.write_bytes(pickle.dumps({0: Evil()}))
    path.with_name(path.name + ".index").unlink(missing_ok=True)
    with pytest.raises(pickle.UnpicklingError, match=r"train_meta.pkl.*refused to load builtins.print"):
        first_item(world)
    assert "stranger" not in capsys.readouterr().out


def test_a_checkpoint_of_another_model_is_refused(world, tmp_path):
    torch.save({"model": {"encoder.weight": torch.zeros(3, 3)}}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="other.pt is a checkpoint of another model"):
        build_model(config(world), tmp_path / "other.pt")


def test_a_real_run_ends_in_one_message_and_not_in_a_traceback(world):
    words = [word for text in settings(world, "loss.betta=0.5", "fairseq.checkpoint.restore_file=null") for word in ("--set", text)]
    done = subprocess.run(
        [sys.executable, "locallaunch.py", "projects/toy/norton.yaml", "--jobtype", "local_single", *words],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode != 0
    assert "unknown key; did you mean 'beta'" in done.stderr and "Traceback" not in done.stderr
