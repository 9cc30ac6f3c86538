"""Every end task on the synthetic data: its toy twin trains a step and predicts; one of them through
fairseq."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

import mmpt
from mmpt.config import load_config
from mmpt.config.load import pipeline_of
from mmpt.tasks import build_task
from mmpt_cli import predict
from tests.conftest import ROOT

TWINS = [  # fine-tuning or None, test, queries or None where the size of the synthetic world says
    ("vtt_ft", "test_vtt_ft", 64),
    ("vttqa_ft", "test_vttqa_ft", 64),
    ("youcook_ft", "test_youcook_ft", 64),
    ("youcookcap_ft", "test_youcookcap_ft", 145),
    ("coin_ft", "test_coin_ft", 6),
    ("crosstask_ft", "test_crosstask_ft", 2),
    ("crosstask_tempclr", "test_crosstask_tempclr", 2),
    ("fewshot", "test_fewshot", 8),
    (None, "test_vtt_zs", 64),
    (None, "test_vttqa_zs", 64),
    (None, "test_youcook_zs", 64),
    (None, "test_youcook_fullvideo_zs", 16),
    (None, "test_youcook_fullvideo_bg_zs", 16),
    (None, "test_coin_zs", 6),
    (None, "test_crosstask_zs", 2),
    (None, "test_didemo_zs", 16),
    (None, "test_htm_align_zs", 12),
    (None, "test_recognition_zs", 108),
    (None, "test_recognition_probe", 108),
    (None, "test_recognition_nn", 108),
    (None, "test_fewshot_zs", 8),
]
SMALL = {name: ["dataset.episodes=8"] for name in ("fewshot", "test_fewshot", "test_fewshot_zs")}
SMALL["test_youcookcap_ft"] = ["gen_param.num_beams=2", "model.max_decode_length=6"]
BATCH = 8


@pytest.fixture
def workplace(toy_world, tmp_path, monkeypatch):
    """A folder in which the toy files find data/toy."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "toy").symlink_to(toy_world)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def twin(name):
    return load_config(ROOT / f"projects/toy/{name}.yaml", ["eval.bootstrap=20", *SMALL.get(name, [])])


def train_a_step(name):
    """Loss of two steps on one batch, and the checkpoint file that the second leaves."""
    config = twin(name)
    task = build_task(config)
    torch.manual_seed(0)
    model = task.build_model()
    dataset = task.build_dataset("train")
    size = min(BATCH, config.fairseq["dataset"]["batch_size"])
    batch = dataset.collate([dataset[index] for index in range(size)])
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)
    model.eval()  # without dropout, so that the second loss can be compared with the first
    losses = []
    for _ in range(2):
        step = task(model, batch)
        optimiser.zero_grad()
        step.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        losses.append(step.loss.item())
    torch.save({"model": model.state_dict()}, "trained.pt")
    return losses


def evaluate(name, checkpoint="trained.pt"):
    return mmpt.evaluate(twin(name), checkpoint, device="cpu", out="out/here")


def write_fairseq_checkpoint(path, weights):
    """As fairseq leaves it behind, without optimiser state."""
    history = {
        "criterion_name": "MMCriterion",
        "optimizer_name": "FairseqAdam",
        "lr_scheduler_state": {},
        "num_updates": 7,
    }
    extra = {"train_iterator": {"epoch": 1, "iterations_in_epoch": 7, "shuffle": True}}
    model = {f"mmmodel.{name}": value for name, value in weights.items()}
    torch.save(
        {"args": None, "cfg": None, "model": model, "optimizer_history": [history], "extra_state": extra},
        path,
    )


@pytest.mark.parametrize(("training", "test", "queries"), TWINS, ids=lambda value: str(value))
def test_a_toy_twin_trains_and_predicts(training, test, queries, workplace):
    if training is not None:
        first, second = train_a_step(training)
        assert np.isfinite([first, second]).all() and second < first
    report = evaluate(test, None if training is None else "trained.pt")
    found = json.loads((workplace / "out/here/results.json").read_text())
    assert found["best_metric"] in found["values"] and all(
        np.isfinite(value) for value in report.result.values.values()
    )
    with np.load(workplace / "out/here/per_query.npz") as stored:
        assert len(set(stored["ids"].tolist())) == queries


def test_every_toy_test_file_is_tried_here():
    files = {path.stem for path in (ROOT / "projects/toy").glob("test_*.yaml")}
    raw = {name for name in files if name.startswith("test_raw_")}  # tests/mmpt_cli/test_make_clips.py
    assert files - raw == {test for _, test, _ in TWINS}


@pytest.mark.parametrize("page", ["endtask.md", "DATASET.md"])
def test_every_project_file_that_the_pages_name_is_there(page):
    named = set(re.findall(r"projects/[\w/]+\.yaml", (ROOT / page).read_text()))
    assert named and not [path for path in named if not ((ROOT / path).is_file() or pipeline_of(path))]


def test_a_training_loss_in_train_mode_uses_the_order_of_annotated_steps(workplace):
    config = twin("crosstask_tempclr")
    task = build_task(config)
    dataset = task.build_dataset("train")
    task.loss.train()
    step = task(task.build_model(), dataset.collate([dataset[0]]))
    assert float(step.terms["alignment"]) > 0


def test_fairseq_fine_tunes_coin_from_a_retrieval_checkpoint_and_predict_reads_the_result(workplace):
    torch.manual_seed(0)
    weights = build_task(twin("test_vtt_zs")).build_model().state_dict()
    write_fairseq_checkpoint("start.pt", weights)
    settings = [
        "fairseq.checkpoint.restore_file=start.pt",
        "fairseq.optimization.max_update=2",
        "fairseq.common.log_interval=1",
    ]
    words = [word for setting in settings for word in ("--set", setting)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        str(ROOT / "locallaunch.py"),
        str(ROOT / "projects/toy/coin_ft.yaml"),
        "--jobtype",
        "local_single",
        *words,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert "video_encoder.classifier.* (2)" in done.stdout + done.stderr, "the new head is not named"
    predict.main([str(ROOT / "projects/toy/test_coin_ft.yaml"), "--set", "eval.bootstrap=20"])
    found = json.loads(
        (workplace / "runs/toy/coin/eval/test_coin_ft/checkpoint_last/results.json").read_text()
    )
    assert found["facts"]["videos"] == 6 and found["checkpoint"]["missing"] == []
    assert (
        found["values"].keys() >= {"frame_acc", "video_acc", "step_acc"}
        and "all background" in found["baselines"]
    )
