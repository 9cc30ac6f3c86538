"""What training takes, told without training."""

import pytest

from mmpt.api.estimate import TRAINED, _largest, estimate
from mmpt.demo.toy_runs import move_folders
from mmpt.tasks.cost import StepCost
from mmpt_cli.train import main
from tests.conftest import ROOT

PROJECT = ROOT / "projects" / "toy" / "norton.yaml"


@pytest.fixture(scope="module")
def settings(toy_world):
    few = ["dataset.num_video_per_batch=4", "loss.sinkhorn_iterations=1", "loss.sequence_contrast=null"]
    return [*move_folders(PROJECT, {"data/toy": str(toy_world)}), *few]


def test_an_estimate_counts_the_configured_batch(settings):
    found = estimate(PROJECT, settings)
    assert found.step.clips == 4 * 8 and found.step.operations > 1e9
    assert found.state_bytes == TRAINED["float32"] * found.trained and found.trained == found.parameters
    assert 32 < found.largest < 10**6


def test_an_estimate_of_packed_towers_leaves_padding_out(settings):
    padded, packed = (estimate(PROJECT, [*settings, f"model.packed={way}"]) for way in ("false", "true"))
    assert packed.step.operations < padded.step.operations and packed.largest > padded.largest


@pytest.mark.parametrize(("room", "clips"), [(0, 0), (110, 10), (139, 19), (140, 20), (1e30, 2**20)])
def test_the_largest_batch_is_the_last_that_fits(room, clips):
    steps = [StepCost(n, 0, 100 + n * n // 10) for n in (10, 20, 30)]
    assert _largest(steps, room) == clips


def test_the_command_prints_it_and_trains_nothing(settings, capsys):
    words = [word for setting in settings for word in ("--set", setting)]
    assert main([str(PROJECT), "--estimate", "--card", "0.001", *words]) == 0
    printed = capsys.readouterr().out
    assert "32 clips a process" in printed and "weights and optimizer alone do not fit" in printed
