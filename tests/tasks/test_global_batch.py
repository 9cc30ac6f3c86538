"""A run does not depend on how many ranks share its global batches; here the ranks are simulated."""

import pytest
import torch
from torch import nn

import mmpt.losses.loss
from mmpt.config import load_config
from mmpt.config.fairseq_args import share
from mmpt.datasets import DataPlan
from mmpt.tasks import Place, Task
from tests.conftest import ROOT
from tests.simulated_ranks import SimulatedRanks

ITEMS, WHOLE, UPDATES = 50, 24, 40


class Towers(nn.Module):
    """Two small towers with dropout."""

    def __init__(self, dtype):
        super().__init__()
        torch.manual_seed(0)
        self.video, self.text = (
            nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Dropout(0.2), nn.Linear(16, 8)).to(dtype)
            for _ in range(2)
        )

    def forward(self, caps, vfeats, **batch):
        return {"pooled_video": self.video(vfeats), "pooled_text": self.text(caps)}


def train(monkeypatch, ranks, dtype, *settings):
    """Weights after `UPDATES` updates on so many ranks."""
    settings = ("loss.sequence_contrast=null", f"dataset.global_batch={WHOLE}", *settings)
    config = load_config(ROOT / "projects/toy/norton.yaml", ("dataset.clip_per_video=null", *settings))
    task, model, part = Task(config), Towers(dtype), share(config, ranks)
    plan, simulated = DataPlan(ITEMS, WHOLE, 1), SimulatedRanks(monkeypatch, ranks, [mmpt.losses.loss])
    data = torch.randn(2, ITEMS, 6, generator=torch.Generator().manual_seed(1)).to(dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for update in range(UPDATES):
        epoch, number = divmod(update, len(plan))
        losses = []
        for turn in range(part.update_freq):
            batches = []
            for rank in range(ranks):
                batch = plan.share(epoch, rank, ranks, part.batch_size)[number * part.update_freq + turn]
                before = (rank * part.update_freq + turn) * part.batch_size
                task.place = Place(1, update, before, part.batch_size)
                inputs = {"caps": data[0, batch], "vfeats": data[1, batch]}
                batches.append(task.forward(model, inputs))
            losses += simulated.run(lambda rank, batches=batches: task.loss(**batches[rank]))
        optimizer.zero_grad()
        (sum(losses) / len(losses)).backward()
        optimizer.step()
    monkeypatch.undo()
    return torch.cat([parameter.detach().flatten().double() for parameter in model.parameters()])


GLOBAL = ("loss.global_negatives=true", "model.micro_batch=6")
LOCAL = ("fairseq.dataset.batch_size=6", "model.micro_batch=3")


@pytest.mark.parametrize(
    ("settings", "dtype", "close"),
    [(GLOBAL, torch.float64, 1e-12), (GLOBAL, torch.float32, 1e-6), (LOCAL, torch.float64, 1e-12)],
)
def test_forty_updates_on_one_two_and_four_ranks_end_in_the_same_weights(monkeypatch, settings, dtype, close):
    one = train(monkeypatch, 1, dtype, *settings)
    for ranks in (2, 4):
        other = train(monkeypatch, ranks, dtype, *settings)
        assert (other - one).norm() / one.norm() < close
