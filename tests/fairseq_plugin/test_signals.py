"""Signals: a checkpoint after the update in hand, exit code 85, and a resumed run that does not show it was
stopped."""

from __future__ import annotations

import os
import signal
import time
from types import SimpleNamespace

import pytest
import torch

from mmpt.fairseq_plugin import signals
from mmpt.launch.torchrun import STOPPED
from tests.fairseq_plugin.jobs import ended, processes, start
from tests.fairseq_plugin.runs import UPDATES, assert_same_weights, command, launch, weights


@pytest.fixture(autouse=True)
def state(monkeypatch):
    """What signals ask for is process-wide; each test starts with nothing asked."""
    monkeypatch.setattr(signals._State, "asked", None)
    monkeypatch.setattr(signals._State, "stopping", False)
    return signals._State


def trainer(world: int = 1) -> SimpleNamespace:
    return SimpleNamespace(data_parallel_world_size=world, data_parallel_rank=0, get_num_updates=lambda: 7)


@pytest.fixture
def after_update(monkeypatch):
    """fairseq's end of an update, and the order in which things happened."""
    happened = []
    checkpoint = SimpleNamespace(save_dir="run", no_save=False, no_last_checkpoints=False)

    def call(finished=False):
        monkeypatch.setitem(
            signals._fairseq,
            "validate_and_save",
            lambda *args: happened.append("fairseq") or ([None], finished),
        )
        monkeypatch.setattr(
            signals.checkpoint_utils, "save_checkpoint", lambda *args: happened.append("saved")
        )
        return signals.validate_and_save(
            SimpleNamespace(checkpoint=checkpoint), trainer(), None, None, [], False
        )[1], happened

    return call


def test_without_a_signal_nothing_changes(after_update, state):
    assert after_update() == (False, ["fairseq"])
    assert not state.stopping


def test_after_a_signal_the_checkpoint_comes_before_validation_and_training_stops(after_update, state):
    state.asked = signal.SIGTERM
    assert after_update() == (True, ["saved", "fairseq"])
    assert state.stopping


def test_a_signal_at_the_very_last_update_leaves_a_finished_run(after_update, state):
    state.asked = signal.SIGTERM
    assert after_update(finished=True)[0]
    assert not state.stopping


def test_the_launcher_knows_the_exit_code():
    assert signals.STOPPED == STOPPED


@pytest.mark.parametrize(("here", "elsewhere"), [(False, False), (False, True), (True, False), (True, True)])
def test_a_signal_to_any_rank_stops_all_at_the_same_update(monkeypatch, state, here, elsewhere):
    monkeypatch.setattr(signals, "sum_on_host", lambda own: [own[0] + elsewhere, *own[1:]])
    state.asked = signal.SIGUSR1 if here else None
    assert signals.anyone_asked(trainer(2)) == (here or elsewhere)


@pytest.mark.slow
def test_sigterm_to_every_process_of_a_run_loses_nothing(toy_world, tmp_path):
    quiet, run = tmp_path / "quiet", tmp_path / "stopped"
    settings = ["fairseq.dataset.num_workers=1"]
    launch(command(toy_world, quiet, *settings))
    words = command(toy_world, run, *settings)
    job = start(words, run)
    for pid in processes(run):
        os.kill(pid, signal.SIGTERM)
    assert f"saved {run}/checkpoint_last.pt; exit code 85" in ended(job)
    state = torch.load(run / "checkpoint_last.pt", map_location="cpu", weights_only=True)
    assert state["optimizer_history"][-1]["num_updates"] < UPDATES, "stopped too late to mean anything"
    launch(words)
    assert_same_weights(weights(run), weights(quiet))


@pytest.mark.slow
def test_a_launcher_killed_without_warning_leaves_no_process_behind(toy_world, tmp_path):
    run = tmp_path / "killed"
    job = start(command(toy_world, run, "fairseq.optimization.max_update=1000", jobtype="local_small"), run)
    assert len(processes(run)) >= 4
    job.kill()
    job.communicate(timeout=60)
    deadline = time.monotonic() + 20
    while processes(run) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not processes(run)


@pytest.mark.slow
def test_the_error_of_the_rank_that_failed_is_shown_once(toy_world, tmp_path):
    words = command(toy_world, tmp_path / "run", "dataset.vfeat_dir=nowhere", jobtype="local_small")
    output = launch(words, expect=1)
    assert "failed first: exit code 1: " in output and output.count("error:") == 1
    assert output.count("no meta index of the shards") == 1
    assert "Traceback" not in output
