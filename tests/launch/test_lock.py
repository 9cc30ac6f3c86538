"""One job at a time in a run folder."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from mmpt.launch import lock
from mmpt.launch.lock import LOCK, FolderInUse, JobLock

HOLD = "import sys, time; from mmpt.launch.lock import JobLock\nwith JobLock(sys.argv[1]):\n    {}"


def holder(folder, then="print('held', flush=True); time.sleep(60)"):
    return subprocess.Popen(
        [sys.executable, "-c", HOLD.format(then), str(folder)], stdout=subprocess.PIPE, text=True
    )


def left_by(folder, **owner):
    """A lock of another machine."""
    (folder / LOCK).write_text(json.dumps({"host": "elsewhere", "machine": ["x", 1], "pid": 1} | owner))


def test_a_second_job_is_refused_while_the_first_lives_and_may_start_once_it_was_killed(tmp_path):
    first = holder(tmp_path)
    assert first.stdout.readline() == "held\n"
    with pytest.raises(FolderInUse, match=rf"in use by process {first.pid} on {socket.gethostname()}"):
        JobLock(tmp_path).__enter__()
    first.kill()
    time.sleep(0.1)  # it is not waited for: a dead child that nobody has asked about is dead as well
    with JobLock(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    first.wait()
    assert not (tmp_path / LOCK).exists()


def test_of_many_that_find_a_left_over_one_gets_the_folder(tmp_path):
    left_by(tmp_path, machine=lock._machine(), pid=2**22, started="1")
    jobs = [holder(tmp_path, "print('held', flush=True); time.sleep(1)") for _ in range(4)]
    said = [job.communicate(timeout=60)[0] for job in jobs]
    assert sorted(said) == ["", "", "", "held\n"]


def test_a_process_id_that_another_process_has_now_is_a_left_over(tmp_path):
    left_by(tmp_path, machine=lock._machine(), pid=os.getpid(), started="1")
    with JobLock(tmp_path) as ours:
        assert ours._is_ours()


def test_a_lock_of_another_machine_counts_while_it_is_renewed(tmp_path, monkeypatch):
    left_by(tmp_path)
    with JobLock(tmp_path, patience_s=0.3) as ours:
        assert ours._is_ours()
    left_by(tmp_path)
    monkeypatch.setattr(lock.time, "sleep", lambda s: os.utime(tmp_path / LOCK))
    with pytest.raises(FolderInUse, match="process 1 on elsewhere"):
        JobLock(tmp_path, patience_s=60).__enter__()


def test_a_job_that_the_queue_starts_again_needs_not_wait_for_itself(tmp_path, monkeypatch):
    left_by(tmp_path, SLURM_JOB_ID="7", SLURM_RESTART_COUNT="1")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    begin = time.monotonic()
    with JobLock(tmp_path):
        assert time.monotonic() - begin < 5


def test_a_lock_that_a_crash_cut_off_goes_by_age(tmp_path):
    (tmp_path / LOCK).write_text('{"host": "x", "pi')
    begin = time.monotonic()
    with JobLock(tmp_path, patience_s=0.2) as ours:
        assert ours._is_ours() and time.monotonic() - begin >= 0.2


def test_a_job_that_lost_its_lock_ends_and_writes_no_more(tmp_path):
    then = "print('held', flush=True); time.sleep(30)"
    code = HOLD.replace("sys.argv[1])", "sys.argv[1], renewed_s=0.05)").format(then)
    job = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert job.stdout.readline() == "held\n"
    left_by(tmp_path)
    assert job.wait(timeout=20) == lock.LOST


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Not a directory. Training writes checkpoints there"):
        JobLock(tmp_path / "file/run").__enter__()
