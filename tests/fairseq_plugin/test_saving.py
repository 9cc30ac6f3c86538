"""Checkpoints that are written beside training."""

import threading
from types import SimpleNamespace

import pytest
import torch
from fairseq.dataclass.configs import CheckpointConfig

from mmpt.checkpoints.weights import read_stored
from mmpt.fairseq_plugin import checkpoint_files, saving
from tests.fairseq_plugin.jobs import start
from tests.fairseq_plugin.runs import command, launch, weights

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


class Trainer:
    """What of fairseq's trainer a save reads."""

    data_parallel_rank = 0
    should_save_checkpoint_on_current_rank = True
    checkpoint_suffix = ""

    def __init__(self, in_shards):
        self.task = SimpleNamespace(config=SimpleNamespace(job=SimpleNamespace(sharded_saves=in_shards)))
        self.model = SimpleNamespace(buffers=list)
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


@pytest.fixture(params=[False, True], ids=["one file", "shards"])
def job(request, tmp_path, monkeypatch):
    """A trainer, and a function that saves; files are written only when `gate` is open."""
    gate, write = threading.Event(), checkpoint_files.save
    monkeypatch.setattr(saving, "writer", saving.Writer())

    def gated(state, filename):
        assert gate.wait(30)
        write(state, filename)

    monkeypatch.setattr(checkpoint_files, "save", gated)
    cfg = CheckpointConfig(save_dir=str(tmp_path), save_interval_updates=1, keep_interval_updates=1)
    epoch = SimpleNamespace(epoch=1, end_of_epoch=lambda: False, state_dict=lambda: {"epoch": 1})
    trainer = Trainer(request.param)
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
    state = read_stored(job.folder / "checkpoint_last.pt")
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
    names = sorted(path.name for path in job.folder.iterdir() if path.is_file())
    assert names == ["checkpoint_1_2.pt", "checkpoint_last.pt"]
    assert [path.name for path in job.folder.glob("shards/*")] in ([], ["checkpoint_1_2-0"])
    assert read_stored(job.folder / "checkpoint_last.pt")["model"]["weight"].eq(2).all()


def test_a_write_that_fails_is_raised_in_training_and_leaves_the_one_before(job, monkeypatch):
    job.gate.set()
    job.save()
    saving.writer.wait()
    monkeypatch.setattr(checkpoint_files, "broken_record", lambda path: "checksum of data/0 differs")
    job.save()
    with pytest.raises(OSError, match="checksum of data/0 differs.*Earlier checkpoints are intact"):
        saving.writer.wait()
    saving.writer.check()  # once
    assert read_stored(job.folder / "checkpoint_last.pt")["model"]["weight"].eq(1).all()
    assert not list(job.folder.glob("*.tmp"))


@pytest.mark.slow
def test_a_job_in_shards_that_is_killed_on_two_processes_goes_on_with_one(toy_world, tmp_path):
    settings = (
        *("dataset.num_video_per_batch=2", "dataset.global_batch=4"),
        *("loss.global_negatives=true", "model.micro_batch=16"),
    )
    ends = []
    for name, shared in (("one file", "false"), ("shards", "true")):
        words = [
            *command(
                toy_world, tmp_path / name, *settings, f"job.sharded_saves={shared}", jobtype="local_small"
            ),
            "--nproc",
        ]
        if shared == "true":
            job = start([*words, "2"], tmp_path / name)
            job.kill()
            job.wait()
            assert len(list((tmp_path / name).glob("shards/*/__?_0.distcp"))) >= 2
        launch([*words, "1"])
        ends.append(torch.cat([value.flatten() for value in weights(tmp_path / name).values()]))
    assert (ends[1] - ends[0]).norm() / ends[0].norm() < 1e-6
