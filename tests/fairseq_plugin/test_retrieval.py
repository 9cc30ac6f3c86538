"""fairseq trains on batches of near neighbours, is stopped within an epoch, and goes on with the same
batches."""

import json
from pathlib import Path

import pytest

from tests.fairseq_plugin.runs import UPDATES, assert_same_weights, command, launch, weights

RETRIEVAL = ("retri_epoch=1", "num_cands=12")


def groups(run: Path, epoch: int) -> list[list[str]]:
    return json.loads((run / f"retri/epoch{epoch}.json").read_text())["groups"]


def quiet_and_resumed(world: Path, folder: Path, *settings: str, jobtype: str) -> tuple[Path, Path]:
    """A run that nothing disturbs, and one stopped after three updates of its first epoch and started
    again."""
    settings = (*RETRIEVAL, *settings)
    launch(command(world, folder / "quiet", *settings, jobtype=jobtype))
    resumed = folder / "resumed"
    launch(command(world, resumed, *settings, "fairseq.optimization.max_update=3", jobtype=jobtype))
    composed = (resumed / "retri/epoch1.json").stat().st_mtime_ns
    output = launch(command(world, resumed, *settings, jobtype=jobtype))
    assert "epoch 1 @ 3 updates" in output and "epoch 1: batches of near neighbours read back" in output
    assert (resumed / "retri/epoch1.json").stat().st_mtime_ns == composed
    return folder / "quiet", resumed


@pytest.mark.slow
def test_a_run_on_near_neighbours_stopped_in_an_epoch_resumes_bit_identical(toy_world, tmp_path):
    quiet, resumed = quiet_and_resumed(toy_world, tmp_path, jobtype="local_single")
    assert_same_weights(weights(quiet), weights(resumed))
    assert all(len(group) == 8 for epoch in (1, 2) for group in groups(quiet, epoch))
    assert groups(quiet, 1) == groups(resumed, 1) != groups(quiet, 2) == groups(resumed, 2)
    assert len(groups(quiet, 1)) < UPDATES, "the run was to reach its second epoch"


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["VideoVectorPool", "DistributedVideoVectorPool"])
def test_two_processes_on_near_neighbours_stopped_in_an_epoch_resume_bit_identical(toy_world, tmp_path, pool):
    quiet, resumed = quiet_and_resumed(toy_world, tmp_path, f"vectorpool_cls={pool}", jobtype="local_small")
    assert_same_weights(weights(quiet), weights(resumed))
    assert groups(quiet, 1) == groups(resumed, 1)
