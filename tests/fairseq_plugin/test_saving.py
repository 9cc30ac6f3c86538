"""Checkpoints that are written beside training."""

import threading
from types import SimpleNamespace

import pytest
import torch
from fairseq.dataclass.configs import CheckpointConfig

from mmpt.fairseq_plugin import checkpoint_files, saving


class Trainer:
    """What of fairseq's trainer a save reads."""

    data_parallel_rank = 0
    should_save_checkpoint_on_current_rank = True
    checkpoint_suffix = ""
    task = None

    def __init__(self):
        self.updates = 1
        self.weight = torch.ones(1000)
        self.tied = self.weight.view(1000)
        self.moments = {0: {"exp_avg": torch.ones(1000, dtype=torch.bfloat16), "step": 1}}

    def train(self):
        """An update, in place as optimizers make it."""
        self.updates += 1
        self.weight.add_(1)
        self.moments[0]["exp_avg"].add_(1)
        self.moments[0]["step"] += 1

    def consolidate_optimizer(self):
        pass

    def get_num_updates(self):
        return self.updates

    def state_dict(self):
        model = {"weight": self.weight, "tied": self.tied}
        return {"model": model, "last_optimizer_state": self.moments, "extra_state": {}}


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A trainer, and a function that saves; files are written only when `gate` is open."""
    gate, write = threading.Event(), checkpoint_files.save
    monkeypatch.setattr(saving, "writer", saving.Writer())

    def gated(state, filename):
        assert gate.wait(30)
        write(state, filename)

    monkeypatch.setattr(checkpoint_files, "save", gated)
    cfg = CheckpointConfig(save_dir=str(tmp_path), save_interval_updates=1, keep_interval_updates=1)
    epoch = SimpleNamespace(epoch=1, end_of_epoch=lambda: False, state_dict=lambda: {"epoch": 1})
    trainer = Trainer()
    yield SimpleNamespace(
        trainer=trainer,
        gate=gate,
        folder=tmp_path,
        save=lambda: saving.save_checkpoint(cfg, trainer, epoch, None),
    )
    gate.set()
    saving.writer.wait()


def test_a_checkpoint_holds_the_values_of_the_moment_of_the_call(job):
    job.save()
    job.trainer.train()
    job.gate.set()
    saving.writer.wait()
    state = torch.load(job.folder / "checkpoint_last.pt")
    assert state["model"]["weight"].eq(1).all() and state["last_optimizer_state"][0]["step"] == 1
    assert state["last_optimizer_state"][0]["exp_avg"].eq(1).all()
    assert state["model"]["weight"].data_ptr() == state["model"]["tied"].data_ptr()
    assert (job.folder / "checkpoint_1_1.pt").samefile(job.folder / "checkpoint_last.pt")


def test_a_second_save_waits_for_the_first_and_what_is_not_kept_goes_last(job):
    job.save()
    job.trainer.train()
    second = threading.Thread(target=job.save)
    second.start()
    second.join(0.1)
    assert second.is_alive() and not list(job.folder.glob("*.pt"))
    job.gate.set()
    second.join(30)
    saving.writer.wait()
    assert sorted(path.name for path in job.folder.iterdir()) == ["checkpoint_1_2.pt", "checkpoint_last.pt"]
    assert torch.load(job.folder / "checkpoint_last.pt")["model"]["weight"].eq(2).all()


def test_a_write_that_fails_is_raised_in_training_and_leaves_the_one_before(job, monkeypatch):
    job.gate.set()
    job.save()
    saving.writer.wait()
    monkeypatch.setattr(checkpoint_files, "broken_record", lambda path: "checksum of data/0 differs")
    job.save()
    with pytest.raises(OSError, match="checksum of data/0 differs.*Earlier checkpoints are intact"):
        saving.writer.wait()
    saving.writer.check()  # once
    assert torch.load(job.folder / "checkpoint_last.pt")["model"]["weight"].eq(1).all()
    assert not list(job.folder.glob("*.tmp"))
