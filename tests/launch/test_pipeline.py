"""Pipelines: what runs side by side, on which GPUs, and what is not done twice."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from mmpt.config import ConfigError
from mmpt.launch import local as localjob
from mmpt.launch import pipeline as stages
from mmpt.launch.local import Command, LocalJob
from mmpt.launch.slurm import SlurmJob


@dataclass(frozen=True)
class Job:
    """A job whose command is a piece of Python."""

    path: str
    folder: Path
    program: str
    gpus: int = 0

    def command(self, check=False):
        return Command([self.path], [sys.executable, "-c", self.program], self.gpus)

    @property
    def stamp(self):
        return self.folder / f".done-{self.path}"

    def is_done(self):
        return self.stamp.exists()

    def begin(self):
        self.folder.mkdir(exist_ok=True)

    def finish(self):
        self.stamp.touch()


@pytest.fixture
def job(tmp_path):
    def make(name, program="", gpus=0):
        return Job(name, tmp_path / name, program, gpus)

    return make


MEET = (
    "import os, time; open({0!r} + '/' + {1!r}, 'w').close()\nwhile len(os.listdir({0!r})) < 2: "
    "time.sleep(0.01)"
)


def test_jobs_of_a_stage_run_at_the_same_time(job, tmp_path):
    (tmp_path / "meeting").mkdir()
    jobs = [job(name, MEET.format(str(tmp_path / "meeting"), name)) for name in ("a", "b")]
    assert stages.run_stages([jobs]) == 0
    assert all(one.is_done() for one in jobs)


def test_jobs_of_a_stage_share_the_gpus_without_overlap(job, tmp_path, monkeypatch):
    for module in (localjob, stages):
        monkeypatch.setattr(module, "visible_gpus", lambda: ["0", "1", "2"])
    program = "import os; print('sees', os.environ['CUDA_VISIBLE_DEVICES'])"
    jobs = [job("a", program, 2), job("b", program, 1), job("c", program, 3)]
    assert stages.run_stages([jobs]) == 0
    seen = [set((one.folder / f"{one.path}.log").read_text().split()[-1].split(",")) for one in jobs]
    assert seen == [{"0", "1"}, {"2"}, {"0", "1", "2"}]


def test_after_a_failure_no_further_job_starts_and_the_end_of_its_output_is_shown(job, monkeypatch, capsys):
    for module in (localjob, stages):
        monkeypatch.setattr(module, "visible_gpus", lambda: ["0"])
    first, second, third = (
        job("first", "import sys; sys.exit('why it failed')", 1),
        job("second", "", 1),
        job("third"),
    )
    assert stages.run_stages([[first, second], [third]]) == 1
    assert not first.is_done() and not second.is_done() and not third.is_done()
    assert "first failed with exit code 1; the end of" in capsys.readouterr().err


def test_two_jobs_of_a_stage_may_not_write_to_the_same_place(job):
    with pytest.raises(ConfigError, match="jobs of one stage write to the same place"):
        stages.run_stages([[job("a"), job("a")]])


@pytest.fixture
def training(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text(
        "dataset: {train_path: x}\nmodel: {model_cls: MMFusionSeparate}\nloss: {loss_cls: MMContraLoss}\n"
        f"fairseq: {{checkpoint: {{save_dir: {tmp_path}/run, restore_file: {tmp_path}/start.pt}}, common: "
        f"{{cpu: true}}}}\n"
    )
    (tmp_path / "run").mkdir()
    return LocalJob(str(path))


def run_through(job):
    job.begin()
    job.finish()
    (job.folder / "checkpoint_last.pt").touch()


def test_a_job_is_done_until_its_settings_change(training):
    assert not training.is_done()
    run_through(training)
    assert training.is_done()
    assert not replace(training, overrides=("dataset.max_len=48",)).is_done()


def test_a_job_is_done_while_what_it_read_is_the_same_by_content_whatever_the_clock_says(training, tmp_path):
    start = tmp_path / "start.pt"
    start.write_bytes(b"old weights")
    run_through(training)
    os.utime(start, (time.time() + 60,) * 2)
    assert training.is_done()
    before = start.stat()
    start.write_bytes(b"new weights")
    os.utime(start, ns=(before.st_atime_ns, before.st_mtime_ns - 10**12))
    assert not training.is_done()


def test_a_job_whose_checkpoints_are_gone_is_not_done(training):
    run_through(training)
    (training.folder / "checkpoint_last.pt").unlink()
    assert not training.is_done()


def test_a_stamp_counts_only_what_was_read_when_the_job_began(training, tmp_path):
    (tmp_path / "start.pt").write_bytes(b"read")
    training.begin()
    (tmp_path / "start.pt").write_bytes(b"came while it ran")
    training.finish()
    (training.folder / "checkpoint_last.pt").touch()
    assert not training.is_done()


def test_on_a_cluster_each_stage_waits_for_all_jobs_of_the_one_before(training, monkeypatch):
    submitted = []

    def launch(job, dryrun):
        submitted.append((job.resources, job.after, job.stamped))
        return str(len(submitted))

    monkeypatch.setattr(SlurmJob, "launch", launch)
    other = replace(training, overrides=("dataset.max_len=48",))
    stages.submit_stages([[training], [other, other], [training]], "cpu", "table")
    assert submitted == [
        ("cpu", (), True),
        ("cpu", ("1",), True),
        ("cpu", ("1",), True),
        ("cpu", ("2", "3"), True),
    ]


def test_a_fault_of_a_file_can_be_mended_on_the_command_line(tmp_path, capsys):
    path = tmp_path / "x.yaml"
    path.write_text("includes: projects/toy/norton.yaml\nloss: {beta: high}\n")
    with pytest.raises(ConfigError, match="loss.beta"):
        stages.launch([str(path)], stages.Request(dryrun=True))
    assert stages.launch([str(path)], stages.Request(dryrun=True, overrides=("loss.beta=0.3",))) == 0
