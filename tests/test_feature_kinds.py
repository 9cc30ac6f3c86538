"""Features of other widths and rates through every training and every test of the synthetic data."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

import mmpt
from mmpt.config import load_config
from mmpt.tasks import build_task
from mmpt.utils import ShardedTensor, ShardWriter
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

TOY = ROOT / "projects/toy"
OTHER = ("raw", "compare")  # from files: mmpt_cli/test_make_clips.py; settings of benchmarks
FILES = {
    path.relative_to(TOY).with_suffix("").as_posix(): path
    for path in sorted(TOY.rglob("*.yaml"))
    if not path.stem.removeprefix("test_").startswith(OTHER)
}
TRAININGS = [name for name, path in FILES.items() if not path.stem.startswith("test")]
TESTS = [name for name in FILES if name not in TRAININGS]
WIDTH = 512  # of the synthetic world's video features, one a second
KINDS = {"256 numbers, 4 a second": (256, 4.0), "4096 numbers, one in 2 seconds": (4096, 0.5)}


def changed(rows, width, rate):
    """Rows of another width and rate, of unit length."""
    found = np.resize(rows.T.astype(np.float32), (width, len(rows))).T
    found = np.repeat(found, int(rate), axis=0) if rate > 1 else found[:: round(1 / rate)]
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float16)


@pytest.fixture(scope="module", params=KINDS)
def kind(request, toy_world, tmp_path_factory):
    """A folder in which the toy files find a world of such features, width and rate."""
    width, rate = KINDS[request.param]
    world = tmp_path_factory.mktemp("kind") / "data/toy"
    shutil.copytree(toy_world, world)
    passport = {"seconds_per_feature": 1 / rate}
    for path in world.rglob("*.npy"):
        if path.name.endswith("_data.npy") or np.load(path, mmap_mode="r").shape[1:] != (WIDTH,):
            continue
        np.save(path, changed(np.load(path), width, rate))
        (path.parent / "passport.json").write_text(json.dumps(passport))
    for path in world.glob("how2/feat/[tv]*_data.npy"):
        shard = path.with_name(path.name.removesuffix("_data.npy"))
        videos = [np.array(video) for video in ShardedTensor.load(str(shard))]
        with ShardWriter(shard, passport=passport) as writer:
            for video in videos:
                writer.append(changed(video, width, rate))
    return world.parent.parent, width, rate


def settings(name, width, rate):
    """Settings by which a toy file reads such features."""
    streams = load_config(FILES[name]).dataset.modalities or {}
    reads = {"model.feature_dim": width, "model.init_from": "null", "eval.bootstrap": 20}
    reads |= {"eval.baselines": []}  # they are fitted to what a checkpoint was trained on
    for modality, entry in streams.items():
        if modality == "video" and not entry.get("map"):
            reads |= {f"dataset.modalities.video.{key}": x for key, x in (("width", width), ("rate", rate))}
    return [f"{key}={value}" for key, value in reads.items()]


@pytest.mark.parametrize("name", TRAININGS)
def test_every_training_makes_a_step(kind, name, monkeypatch):
    folder, width, rate = kind
    monkeypatch.chdir(folder)
    config = load_config(FILES[name], settings(name, width, rate))
    task = build_task(config)
    torch.manual_seed(0)
    model, dataset = task.build_model(), task.build_dataset("train")
    size = min(4, config.fairseq["dataset"]["batch_size"])
    step = task(model, dataset.collate([dataset[index] for index in range(size)]))
    step.loss.backward()
    assert step.loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", TESTS)
def test_every_test_gives_its_numbers(kind, name, monkeypatch):
    folder, width, rate = kind
    monkeypatch.chdir(folder)
    small = ["gen_param.num_beams=1", "model.max_decode_length=4"] if "cap" in name else []
    small += ["dataset.episodes=4"] if "fewshot" in name else []
    report = mmpt.evaluate(FILES[name], None, [*settings(name, width, rate), *small], device="cpu")
    assert report.result.values and all(np.isfinite(value) for value in report.result.values.values())
