"""Training on raw clips, from files to a smaller loss."""

from __future__ import annotations

import pytest
import torch

from mmpt.config import load_config
from mmpt.models.gdt import AVGDT
from mmpt.models.raw_clips import RawAVGDT
from mmpt.tasks.task import build_task
from tests.conftest import ROOT
from tests.media.media import write_clip

pytest.importorskip("av")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for n in range(2):
        write_clip(folder / f"v{n}.mkv", 4 + n)
    settings = "{frames: 8, fps: 8, size: 16, sample_rate: 8000}"
    return load_config(
        ROOT / "projects/retri/gdt/raw_k400_av.yaml",
        [f"dataset.train_path={folder}", f"dataset.raw={settings}"],
    )


def test_views_do_not_share_statistics(config):
    torch.manual_seed(0)
    model = RawAVGDT(config).eval()
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


def test_step_on_files_reaches_every_weight(config):
    torch.manual_seed(0)
    task = build_task(config)
    model = task.build_model()
    dataset = task.build_dataset("train")
    step = task(model, dataset.collate([dataset[0], dataset[1]]))
    step.loss.backward()
    assert step.loss.isfinite() and step.n_clips == 8
    assert all(
        parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters()
    )
