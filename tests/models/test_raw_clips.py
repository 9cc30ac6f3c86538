"""Training on raw clips, from files to a smaller loss."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmpt.config import load_config
from mmpt.config.load import recursive_config
from mmpt.models.gdt import AVGDT
from mmpt.models.raw_clips import RawAVGDT, read_word_table
from mmpt.tasks.task import build_task
from tests.conftest import ROOT
from tests.media.media import write_clip

pytest.importorskip("av")
VIEWS = {1: 1, 4: 2, 8: 4}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Two classes of two videos, as Kinetics lies."""
    folder = tmp_path_factory.mktemp("videos")
    for n in range(4):
        (folder / f"class{n % 2}").mkdir(exist_ok=True)
        write_clip(folder / f"class{n % 2}" / f"v{n}.mkv", 4 + n)
    return folder


def gdt(videos, *settings):
    raw = "{frames: 8, fps: 8, size: 16, sample_rate: 8000}"
    own = [f"dataset.train_path={videos}", f"dataset.raw={raw}", "model.width=8", *settings]
    return load_config(ROOT / "projects/retri/gdt/raw_k400_av.yaml", own)


def one_step(config, items=(0, 1)):
    torch.manual_seed(0)
    task = build_task(config)
    model, dataset = task.build_model(), task.build_dataset("train")
    step = task(model, dataset.collate([dataset[k] for k in items]))
    step.loss.backward()
    return task, model, step


def test_views_do_not_share_statistics(videos):
    torch.manual_seed(0)
    model = RawAVGDT(gdt(videos)).eval()
    video, audio = torch.rand(4, 3, 8, 16, 16), torch.rand(4, 1, 40, 99)
    alone = AVGDT.forward(model, video, audio)
    with torch.no_grad():
        torch.testing.assert_close(model(video, audio, clips_per_video=2), alone)
        model.train()
        model.mlp_v.eval(), model.mlp_a.eval()  # dropout draws
        first = model(video, audio, clips_per_video=2)["pooled_video"]
        changed = model(
            torch.stack([video[0], video[1] * 9, video[2], video[3] * 9]), audio, clips_per_video=2
        )["pooled_video"]
    torch.testing.assert_close(first[::2], changed[::2])
    assert not torch.allclose(first[1::2], changed[1::2])


@pytest.mark.parametrize("hypothesis", VIEWS)
def test_one_key_chooses_views_batch_and_layout_and_a_step_reaches_every_weight(videos, hypothesis):
    config = gdt(videos, f"loss.hypothesis={hypothesis}")
    assert len(config.dataset.views) == VIEWS[hypothesis]
    assert config.trainer.batch_size == 8 * VIEWS[hypothesis]  # 8 videos
    _, model, step = one_step(config)
    assert step.loss.isfinite() and step.n_clips == 2 * VIEWS[hypothesis]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_videos_of_a_class_do_not_stay_together(videos):
    task = build_task(gdt(videos))
    dataset = task.build_dataset("train")
    orders = []
    for epoch in (1, 2, 3, 1):
        task.begin_epoch(dataset, epoch, None)
        orders.append([path.stem for path, _ in dataset.meta_processor.data])
    assert orders[0] == orders[3] and len({tuple(order) for order in orders}) > 1
    assert all(sorted(order) == sorted(orders[0]) for order in orders)


@pytest.mark.parametrize("layers", [0, 1])
def test_stica_step_on_files_reaches_every_weight(videos, layers):
    settings = {
        "dataset.train_path": videos,
        "dataset.raw": "{frames: 16, fps: 8, size: 32, sound_s: 2, sample_rate: 8000, filters: 40}",
        "model.width": 8,
        "model.pooling": f"{{layers: {layers}, heads: 2, ffn: 16}}",
    }
    path = ROOT / "projects/retri/stica/raw_k400.yaml"
    _, model, step = one_step(load_config(path, [f"{key}={value}" for key, value in settings.items()]))
    assert step.loss.isfinite() and set(step.terms) == {"av", *(f"crop_{kind}" for kind in CROPS)}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert (
        model.video_pooling.state_dict() == {}
        if layers == 0
        else "2.transformer.0.mha.q_lin.weight" in (model.video_pooling.state_dict())
    )


CROPS = ("sl_sl", "ss_sl", "tl_tl", "ts_tl")


def test_stica_draws_other_boxes_in_each_update(videos):
    path = ROOT / "projects/retri/stica/raw_k400.yaml"
    model = build_task(load_config(path, ["model.width=8", f"dataset.train_path={videos}"])).build_model()
    boxes = [model.crop.draw((8, 7, 7), update, version) for update in (0, 1) for version in (1, 2)]
    assert len({tuple(of) for of in boxes}) == 4 and len(boxes[0]) == 2 + 4 + 2 + 1


def test_launch_script_arguments_of_stica_are_keys():
    tree = recursive_config(ROOT / "projects/retri/stica/raw_k400.yaml")
    raw, crops = tree["dataset"]["raw"], tree["model"]["crops"]
    assert (raw["frames"], raw["sound_s"], tree["model"]["pooling"]["layers"]) == (60, 2, 2)
    assert [
        crops[f"num_{kind}"] for kind in ("large_crops", "small_crops", "small_tcrops", "large_tcrops")
    ] == [2, 4, 1, 2]


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, FileNotFoundError, "word2vec.zip"),
        ({"a": torch.zeros(2)}, ValueError, r"expected one tensor \(words \+ 1, width\), got dict"),
        (torch.zeros(3), ValueError, r"got \(3,\)"),
    ],
)
def test_a_word_table_that_is_none_is_named(tmp_path: Path, content, error, message):
    path = tmp_path / "word2vec.pth"
    if content is not None:
        torch.save(content, path)
    with pytest.raises(error, match=message):
        read_word_table(str(path))
