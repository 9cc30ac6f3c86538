"""BatchNorm over the batches of several processes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from mmpt.modules.synced_norm import synchronised
from tests.two_processes import WORLD, run_on_two_ranks

CLIPS = 6


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv3d(2, 3, 2), nn.BatchNorm3d(3), nn.Flatten(), nn.Linear(24, 4), nn.BatchNorm1d(4)
    )


def step(model: nn.Module, clips: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradients and statistics after a mean of squares over the clips."""
    (model(clips) * torch.arange(4.0)).square().mean().backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    return found | {name: value for name, value in model.state_dict().items() if "running" in name}


def clips() -> torch.Tensor:
    return torch.randn(CLIPS, 2, 3, 3, 3, generator=torch.Generator().manual_seed(1)) * 3 + 1


def on_one_rank(rank: int, folder: Path) -> None:
    found = step(synchronised(network()), clips()[rank::WORLD])
    torch.save(found, folder / f"{rank}.pt")


def test_two_processes_that_synchronise_are_one_with_the_joint_batch(tmp_path):
    run_on_two_ranks(on_one_rank, tmp_path)
    joint, parts = step(network(), clips()), [torch.load(tmp_path / f"{rank}.pt") for rank in range(WORLD)]
    for name, value in joint.items():
        shared = sum(part[name] for part in parts) / WORLD  # as data-parallel training averages
        torch.testing.assert_close(shared, value, rtol=1e-4, atol=1e-6)


def test_one_process_keeps_its_model():
    model = network()
    assert synchronised(model) is model and type(model[1]) is nn.BatchNorm3d
