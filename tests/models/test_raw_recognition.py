"""Action recognition on frames: the model, what it starts from, and that it learns."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from mmpt.api.evaluation import Evaluation
from mmpt.config import load_config
from mmpt.models.gdt import AVGDT, STiCANetwork
from mmpt.models.raw_recognition import RawRecognition, linear_classifier
from mmpt.synthetic.action_clips import write_action_clips
from mmpt.tasks.task import build_task
from tests.conftest import ROOT, golden_cases, load_golden

pytest.importorskip("av")
FLAGS = {"plain": "", "bn": "model.classifier_norm=true", "l2": "model.unit_vectors=true"}


def config(*settings, project="ucf101_ft"):
    small = ["model.width=8", "model.n_classes=4", "model.init_from=null", "model.learning_rates=null"]
    return load_config(ROOT / f"projects/task/{project}.yaml", [*small, *filter(None, settings)])


@pytest.mark.parametrize("kind", FLAGS)
@pytest.mark.parametrize("path", golden_cases("release_gdt_eval*.npz"))
def test_golden_release_gdt_eval_classifiers(path, kind):
    golden = load_golden(path)
    prefix = f"model_{kind}.state."
    state = {
        name.removeprefix(prefix): torch.from_numpy(x)
        for name, x in golden.items()
        if name.startswith(prefix)
    }
    n_classes, width = state["classifier.1.weight" if kind == "bn" else "classifier.weight"].shape
    model = RawRecognition(config(FLAGS[kind]))
    model.base = nn.Sequential(OrderedDict(c=nn.Linear(state["base.c.weight"].shape[1], width)))
    model.classifier = linear_classifier(width, n_classes, kind == "bn")
    weight = (model.classifier[1] if kind == "bn" else model.classifier).weight
    np.testing.assert_allclose(
        (weight @ weight.T).detach(), golden[f"model_{kind}.initial_weight_gram"], atol=1e-5
    )
    own = {name: value for name, value in state.items() if not name.startswith(("final_bn", "linear_layer"))}
    model.double().load_state_dict(own)
    x = torch.from_numpy(golden[f"model_{kind}.in"])
    for mode in ("train", "eval"):
        logits = model.train(mode == "train")(x)["logits"].detach()
        if kind == "bn" and mode == "eval":
            continue  # the stored statistics are those after the step
        np.testing.assert_allclose(logits, golden[f"model_{kind}.out_{mode}"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["gdt", "stica", "fine-tuned"])
def test_the_video_network_of_a_checkpoint_is_taken_over(tmp_path, kind):
    torch.manual_seed(1)
    pooling = "model.pooling={layers: 1, heads: 2, ffn: 8}" if kind == "stica" else ""
    source = {
        "gdt": lambda: AVGDT(width=8),
        "stica": lambda: STiCANetwork(1, width=8, heads=2, ffn=8),
        "fine-tuned": lambda: RawRecognition(config()),
    }[kind]().eval()
    torch.save({"state_dict": {f"module.{k}": v for k, v in source.state_dict().items()}}, tmp_path / "a.pth")
    model = RawRecognition(config(pooling, f"model.init_from={tmp_path}/a.pth")).eval()
    video = torch.rand(2, 3, 8, 32, 32)
    torch.testing.assert_close(model.video_vectors(video), source.video_vectors(video))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"stem.0.weight": torch.zeros(1)}, r"tensors of model.init_from: base.\* are not there"),
        (AVGDT(width=16).state_dict(), "has other sizes: base.stem.0.weight: file"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused(tmp_path, state, message):
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=message):
        RawRecognition(config(f"model.init_from={tmp_path}/a.pth"))


def test_the_number_of_classes_is_asked_for():
    with pytest.raises(ValueError, match="101 of UCF101"):
        RawRecognition(config("model.n_classes=null"))


def test_a_probe_trains_the_classifier_alone_and_leaves_statistics():
    model = RawRecognition(config("model.probe=true")).train()
    before = {name: value.clone() for name, value in model.base.state_dict().items()}
    model(torch.rand(2, 3, 8, 32, 32))["logits"].sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is not None] == [
        "classifier.weight",
        "classifier.bias",
    ]
    assert all(torch.equal(value, before[name]) for name, value in model.base.state_dict().items())


def test_fine_tuning_on_small_videos_beats_chance_by_far(tmp_path):
    write_action_clips(tmp_path, videos=6, seconds=1)
    files = [
        f"dataset.annotation_path={tmp_path}/splits",
        "dataset.raw={frames: 4, fps: 4, size: 32}",
        "fairseq.dataset.num_workers=0",
    ]
    torch.manual_seed(0)
    task = build_task(config(*files, f"dataset.train_path={tmp_path}/videos"))
    model, dataset = task.build_model().train(), task.build_dataset("train")
    task.begin_epoch(dataset, 1, None)
    items = [dataset[index] for index in range(48)]  # decoding again takes longer than it teaches
    optimizer = torch.optim.SGD(model.parameters(), 0.03, momentum=0.9, weight_decay=0.005)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [28])
    for _ in range(40):
        batch = dataset.collate([items[k] for k in torch.randperm(48)[:16]])
        optimizer.zero_grad()
        task(model, batch).loss.backward()
        optimizer.step()
        schedule.step()
    tested = [*files, f"dataset.test_path={tmp_path}/videos", "dataset.test_clips=2"]
    result, arrays = Evaluation(config(*tested, project="test_ucf101_ft"), device="cpu").score(model)
    assert arrays["scores"].shape == (8 * 2, 4)  # clips of the 8 test videos
    assert result.values["split1-acc"] >= 0.6  # chance is 0.25
