"""Runs that go on with another number of processes, or have nothing left to do."""

from dataclasses import asdict
from types import SimpleNamespace

import pytest
import torch

from mmpt.config.fairseq_args import Share
from mmpt.fairseq_plugin.task import FairseqMMTask
from tests.fairseq_plugin.runs import command, launch, logged, weights


@pytest.mark.parametrize(
    ("before", "now", "done", "expected"),
    [(2, 2, 3, 3), (2, 1, 3, 6), (1, 2, 6, 3), (1, 2, 5, 2), (8, 64, 30, 3), (None, 2, 3, 3), (1, 8, 3, 0)],
)
def test_the_place_in_the_epoch_is_counted_in_batches_of_all_processes(before, now, done, expected):
    resumed = []
    task = object.__new__(FairseqMMTask)
    task.args, task.share = SimpleNamespace(distributed_world_size=now), None
    task.mmtask = SimpleNamespace(resume=lambda state, epoch: resumed.append(epoch))
    position = {"epoch": 4, "iterations_in_epoch": done}
    task.resume({"train_iterator": position, "mmtask": {} if before is None else {"processes": before}})
    assert position == {"epoch": 4, "iterations_in_epoch": expected} and resumed == [4]


@pytest.mark.parametrize(
    ("stored", "now", "done", "expected"),
    [
        (Share(24, 4, 6), Share(24, 4, 2), 12, 4),  # two updates
        (Share(24, 24, 1), Share(24, 6, 1), 7, 7),
        (Share(24, 24, 1), Share(12, 6, 1), 3, 6),
        (Share(24, 24, 1), Share(36, 36, 1), 4, 2),  # 96 items, of which 24 are drawn again
        (None, Share(24, 4, 6), 5, 0),
        (Share(24, 4, 6), None, 5, 0),
    ],
)
def test_the_place_in_a_planned_epoch_is_counted_in_items(stored, now, done, expected):
    task = object.__new__(FairseqMMTask)
    task.args, task.share = SimpleNamespace(distributed_world_size=1), now
    state = {"processes": 6, "share": stored and asdict(stored)}
    assert task._batches_done(done, 2, state) == expected


@pytest.mark.slow
@pytest.mark.parametrize("negatives", ["true", "false"])
def test_forty_updates_on_one_two_and_four_processes_end_in_the_same_weights(toy_world, tmp_path, negatives):
    """Dropout is on: its draws go by items, not by processes."""
    settings = (
        "dataset.num_video_per_batch=2",
        "dataset.global_batch=4",
        f"loss.global_negatives={negatives}",
        "model.micro_batch=16",
        "fairseq.optimization.max_update=40",
        "fairseq.checkpoint.save_interval_updates=0",
    )
    ends = []
    for processes in (1, 2, 4):
        run = tmp_path / str(processes)
        job = [*command(toy_world, run, *settings, jobtype="local_small"), "--nproc", str(processes)]
        output = launch(job)
        assert f"{processes} processes x" in output
        ends.append(torch.cat([value.flatten().double() for value in weights(run).values()]))
    for other in ends[1:]:
        assert (other - ends[0]).norm() / ends[0].norm() < 1e-6


@pytest.mark.slow
def test_a_planned_epoch_goes_on_with_another_number_of_processes(toy_world, tmp_path):
    settings = ("dataset.num_video_per_batch=2", "dataset.global_batch=4", "loss.global_negatives=true")
    ends = []
    for name, counts in (("one", (1,)), ("changing", (2, 4, 1))):
        for number, processes in enumerate(counts):
            last = f"fairseq.optimization.max_update={(number + 1) * 4 if name == 'changing' else 12}"
            total = "fairseq.optimization.total_num_update=12"
            job = command(
                toy_world,
                tmp_path / name,
                *settings,
                "model.micro_batch=16",
                last,
                total,
                jobtype="local_small",
            )
            launch([*job, "--nproc", str(processes)])
        ends.append(torch.cat([value.flatten() for value in weights(tmp_path / name).values()]))
    assert (ends[1] - ends[0]).norm() / ends[0].norm() < 1e-6


@pytest.mark.slow
def test_an_epoch_begun_by_two_processes_is_finished_by_one_without_loss(toy_world, tmp_path):
    run, settings = tmp_path / "run", ("retri_epoch=1", "num_cands=12")
    launch(command(toy_world, run, "fairseq.optimization.max_update=3", *settings, jobtype="local_small"))
    output = launch(
        command(
            toy_world, run, "dataset.num_video_per_batch=4", "fairseq.optimization.max_update=10", *settings
        )
    )
    # 12 batches: 3 updates of two, then 6 of one
    assert '"epoch": 1,' in output and '"train_num_updates": "9"' in output


@pytest.mark.slow
def test_a_run_that_is_done_and_is_started_again_stays_as_it_is(toy_world, tmp_path):
    words = command(
        toy_world, tmp_path / "run", "fairseq.optimization.max_update=6", "retri_epoch=1", "num_cands=12"
    )  # to an epoch's end
    assert "batches of near neighbours" in launch(words)
    before = (tmp_path / "run/checkpoint_last.pt").stat().st_mtime_ns
    output = launch(words)
    assert "all 6 updates are done" in output and "batches of near neighbours" not in output
    assert (tmp_path / "run/checkpoint_last.pt").stat().st_mtime_ns == before


@pytest.mark.slow
def test_patience_goes_on_counting_where_a_stopped_run_left_it_and_ends_a_run_for_good(toy_world, tmp_path):
    settings = (
        "fairseq.optimization.lr=[0.0]",  # no validation is ever better than the first
        "fairseq.dataset.disable_validation=false",
        "fairseq.dataset.validate_interval_updates=1",
        "fairseq.checkpoint.patience=3",
    )
    run = tmp_path / "run"
    launch(command(toy_world, run, *settings, "fairseq.optimization.max_update=2"))
    words = command(toy_world, run, *settings)
    output = launch(words)
    assert "hasn't improved for last 3 runs" in output and len(logged(output)) == 2, (
        "1 best, 2 in the first run, 3 and 4 in the second"
    )
    assert "all 4 updates are done" in launch(words)
