"""What each item of a batch does to its gradient."""

import math

import pytest
import torch
from torch import nn

from mmpt.config import load_config
from mmpt.tasks import Task, VideoRetriTask
from mmpt.tasks.shares import item_shares
from tests.conftest import ROOT

LOCAL = ("loss.sequence_contrast=null", "loss.sinkhorn_iterations=null")


class Towers(nn.Module):
    """Two linear towers with dropout, which read clips alone."""

    def __init__(self):
        super().__init__()
        self.video, self.text = nn.Linear(6, 5, dtype=torch.float64), nn.Linear(4, 5, dtype=torch.float64)
        self.dropout = nn.Dropout(0.3)

    def forward(self, caps, vfeats, **batch):
        return {
            "pooled_video": self.dropout(self.video(vfeats.mean(1))),
            "pooled_text": self.dropout(self.text(caps.double())),
        }


def task(cls=VideoRetriTask, *overrides):
    return cls(load_config(ROOT / "projects/toy/norton.yaml", (*LOCAL, *overrides)))


def groups(items=2, videos=3, clips=8):
    generator = torch.Generator().manual_seed(0)
    return {
        "caps": torch.randn(items, videos, clips, 4, generator=generator),
        "vfeats": torch.randn(items, videos, clips, 2, 6, generator=generator).double(),
        "vmasks": torch.ones(items, videos, clips, 2, dtype=torch.bool),
        "cmasks": torch.ones(items, videos, clips, 4, dtype=torch.bool),
        "video_id": [[f"{i}{v}" for v in range(videos)] for i in range(items)],
    }


def test_the_parts_of_all_videos_add_up_to_the_gradient():
    """Of one video: with the rows of all others cut off from the parameters."""
    joint, model, sample = task(), Towers(), groups()
    found = item_shares(joint, model, sample, [7, 9])
    assert [(share.item, share.video) for share in found] == [
        (7, "00"), (7, "01"), (7, "02"), (9, "10"), (9, "11"), (9, "12")
    ]  # fmt: skip
    flat, total = joint.flatten(sample), 0.0
    for unit, share in enumerate(found):
        with torch.random.fork_rng():
            out = model(**flat)
        own = torch.arange(48) // 8 == unit
        cut = {name: torch.where(own[:, None], value, value.detach()) for name, value in out.items()}
        loss = joint.loss(**(flat | cut | {"clips_per_video": 8, "num_updates": 0}))
        parts = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
        assert share.norm == pytest.approx(parts.norm().item(), rel=1e-12)
        total = total + parts
    with torch.random.fork_rng():
        whole = torch.autograd.grad(joint(model, sample).loss, list(model.parameters()))
    torch.testing.assert_close(total, torch.cat([g.flatten() for g in whole]))


def test_what_a_video_adds_to_the_loss_is_the_loss_without_it_less():
    joint, model, sample = task(), Towers().eval(), groups()
    found, flat = item_shares(joint, model, sample, [7, 9]), joint.flatten(sample)
    keep = torch.arange(48) // 8 != 4
    rest = {name: value[keep] for name, value in flat.items() if isinstance(value, torch.Tensor)}
    extra = {"clips_per_video": 8, "num_updates": 0}
    without = joint.loss(**(rest | extra | model(**rest)))
    whole = joint.loss(**(flat | extra | model(**flat)))
    assert found[4].loss == pytest.approx((whole - without).item(), rel=1e-9)


def test_random_streams_and_gradients_are_left_as_they_are():
    model, before = Towers(), torch.get_rng_state()
    item_shares(task(), model, groups(), [0, 1])
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_video_with_a_number_that_is_not_finite_is_named():
    sample = groups()
    sample["vfeats"][1, 2, 5, 0, 3] = math.nan
    found = item_shares(task(), Towers(), sample, [3, 4])
    assert [share.finite for share in found] == [True] * 5 + [False]
    assert all(math.isnan(share.norm) for share in found)


def test_items_of_one_video_and_of_sub_samples_are_told_apart():
    plain = task(Task, "dataset.subsampling=2", "dataset.clip_per_video=null")
    sample = {name: value[0] for name, value in groups().items() if name != "video_id"}  # 3 items of 8 clips
    found = item_shares(plain, Towers(), sample | {"video_id": ["a", "b", "c"]}, [5, 6, 7])
    assert [(share.item, share.video) for share in found] == [(5, "a"), (6, "b"), (7, "c")]
    assert all(share.norm > 0 for share in found)


def test_clips_are_named_by_their_video_and_seconds():
    plain = task(Task, "dataset.subsampling=2", "dataset.clip_per_video=null")
    sample = {name: value[0] for name, value in groups().items() if name != "video_id"}  # 3 items of 8 clips
    clips = [("a", 0, 4), ("a", 4, 9), ("b", 0, 3)]
    found = item_shares(plain, Towers(), sample | {"video_id": clips}, [5, 6, 7])
    assert [share.video for share in found] == ["a 0-4", "a 4-9", "b 0-3"]


def test_rows_that_stand_for_pairs_of_clips_are_given_to_no_video():
    class Pairs(Towers):
        def forward(self, **batch):
            outputs = super().forward(**batch)
            return {"align_scores": torch.cat([outputs["pooled_video"], outputs["pooled_text"]])[:, :2]}

    aligned = task(VideoRetriTask, "loss={loss_cls: NCE}")
    assert all(math.isnan(share.norm) for share in item_shares(aligned, Pairs(), groups(), [0, 1]))
