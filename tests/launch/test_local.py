"""One project file becomes one command."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time

import pytest

from mmpt.config import ConfigError
from mmpt.launch import local as localjob
from mmpt.launch.local import Command, LocalJob, Running, visible_gpus
from mmpt.launch.torchrun import Topology
from tests.conftest import ROOT

TRAIN = """
dataset: {train_path: a.lst}
model: {model_cls: MMFusionSeparate}
loss: {loss_cls: MMContraLoss}
fairseq:
  common: {fp16: %s}
  optimization: {lr: [5e-5, 1e-5]}
  checkpoint: {save_dir: runs/none, reset_optimizer: false}
"""


@pytest.fixture(autouse=True)
def in_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def train_yaml(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text(TRAIN % "true")
    return str(path)


def launched(capsys, *args, **kwargs) -> str:
    assert LocalJob(*args, **kwargs).launch(dryrun=True) == 0
    return capsys.readouterr().out


def words(shown: str) -> list[str]:
    return shlex.split(shown.splitlines()[-1])


def test_one_process_is_fairseqs_own_command(train_yaml, capsys):
    head = [
        "launching",
        "fairseq-train",
        train_yaml,
        "--user-dir",
        "mmpt",
        "--task",
        "mmtask",
        "--arch",
        "mmarch",
        "--criterion",
        "mmloss",
    ]
    assert words(launched(capsys, train_yaml, "local_single"))[: len(head)] == head


@pytest.mark.parametrize(("job_type", "processes"), [("local_small", "2"), ("local_big", "8")])
def test_several_processes_start_through_torchrun_and_state_the_world_size(
    train_yaml, capsys, job_type, processes
):
    line = words(launched(capsys, train_yaml, job_type))
    assert line[1:6] == ["torchrun", f"--nproc_per_node={processes}", "--standalone", "train.py", train_yaml]
    assert line[line.index("--distributed-world-size") + 1] == processes


def test_false_flags_are_left_out_and_all_learning_rates_are_passed(tmp_path, capsys):
    path = tmp_path / "x.yaml"
    path.write_text(TRAIN % "false")
    shown = launched(capsys, str(path), "local_single")
    assert "--fp16" not in shown
    assert "--reset-optimizer" not in shown
    assert "--lr '[5e-05, 1e-05]'" in shown


def test_the_cpu_form_trains_in_float32_and_says_so(train_yaml, capsys):
    shown = launched(capsys, train_yaml, "local_small", cpu=True)
    assert "--cpu" in words(shown)
    assert "--fp16" not in words(shown)
    assert "training in float32: --cpu leaves out fp16" in shown


def test_overrides_change_the_flags_and_are_handed_on(train_yaml, capsys):
    line = words(
        launched(
            capsys,
            train_yaml,
            "local_single",
            overrides=("fairseq.optimization.max_epoch=1", "dataset.max_len=48"),
        )
    )
    assert line[line.index("--max-epoch") + 1] == "1"
    assert line[-4:] == ["--set", "fairseq.optimization.max_epoch=1", "--set", "dataset.max_len=48"]


def test_prediction_takes_the_file_alone(capsys):
    shown = launched(capsys, "projects/retri/norton/test_vtt_zs.yaml")
    assert shown.splitlines() == [
        "[JobLauncher] job_key local",
        "launching python mmpt_cli/predict.py projects/retri/norton/test_vtt_zs.yaml",
    ]


def test_prediction_on_the_cpu_says_so(capsys):
    assert launched(capsys, "projects/retri/norton/test_vtt_zs.yaml", cpu=True).endswith("--device cpu\n")


def test_a_cluster_job_type_falls_back_to_one_process_with_a_notice(capsys):
    shown = launched(capsys, "projects/retri/norton/how2_pretrain.yaml")
    assert "task_type sweep_big is for a cluster: running local_single here" in shown
    assert "--distributed-world-size" not in shown


def test_an_unknown_task_type_lists_the_known_ones(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("task_type: local_huge\n" + TRAIN % "true")
    with pytest.raises(
        ConfigError,
        match="task_type: unknown job type 'local_huge'; known: local_single, local_small, local_big",
    ):
        LocalJob(str(path)).launch(dryrun=True)


@pytest.mark.parametrize("job_type", ["local_single", "local_small"])
def test_a_test_file_is_predicted_under_a_job_type_of_training_and_that_is_said(job_type, capsys):
    path = "projects/retri/norton/test_vtt_zs.yaml"
    job = LocalJob(path, job_type)
    assert job.is_prediction
    assert launched(capsys, path, job_type).splitlines() == [
        f"[JobLauncher] {path} is a test file: running its prediction (local_predict)",
        "[JobLauncher] job_key local",
        f"launching python mmpt_cli/predict.py {path}",
    ]


def test_training_from_a_test_file_without_a_predictor_is_refused():
    with pytest.raises(ConfigError, match="Use --jobtype local_predict"):
        LocalJob("projects/task/test.yaml", "local_single").launch(dryrun=True)


@pytest.mark.parametrize(
    ("job_type", "gpus", "advice"),
    [
        ("local_small", 0, "local_small needs 2 GPUs, this machine shows 0. Use --cpu to train on the CPU"),
        ("local_single", 0, "local_single needs 1 GPU, this machine shows 0. Use --cpu"),
        ("local_big", 4, "local_big needs 8 GPUs, this machine shows 4. Use --jobtype local_small, or --cpu"),
        ("local_small", 1, "Use --jobtype local_single, or --cpu"),
    ],
)
def test_asking_for_gpus_that_are_not_there_says_what_to_ask_for(
    train_yaml, monkeypatch, job_type, gpus, advice
):
    monkeypatch.setattr(localjob, "visible_gpus", lambda: [str(gpu) for gpu in range(gpus)])
    with pytest.raises(ConfigError, match=advice.replace(".", r"\.")):
        LocalJob(train_yaml, job_type).launch()


@pytest.fixture
def two_gpus(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: a'\necho '  MIG 1g'\necho 'GPU 1: b'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        (None, "0 1"),
        ("", ""),
        ("-1", ""),
        ("1", "1"),
        ("0,1", "0 1"),
        ("3,2,1", "3 2"),
        ("0,-1,1", "0"),
        ("GPU-a", "GPU-a"),
    ],
)
def test_gpus_are_counted_and_named_as_cuda_would(two_gpus, monkeypatch, chosen, names):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert visible_gpus() == names.split()


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """Commands are replaced by one that writes down its arguments and the GPUs it sees."""
    log = tmp_path / "recorded"
    program = (
        "import os, sys; open(sys.argv[1], 'w').write(os.environ['CUDA_VISIBLE_DEVICES'] + chr(10) "
        "+ chr(10).join(sys.argv[2:]))"
    )
    popen = subprocess.Popen
    record = [sys.executable, "-c", program, str(log)]
    monkeypatch.setattr(
        localjob.subprocess, "Popen", lambda argv, **options: popen([*record, *argv], **options)
    )
    return lambda: log.read_text().split("\n")


def test_a_run_uses_an_argv_list_and_this_interpreter(train_yaml, recorded):
    assert LocalJob(train_yaml, "local_small", cpu=True).launch() == 0
    devices, *argv = recorded()
    assert argv[:4] == [sys.executable, "-m", "mmpt.launch.torchrun", "--log-dir=runs/none/logs"]
    assert argv[4:8] == ["--nproc_per_node=2", "--standalone", "-m", "mmpt_cli.fairseq_train"]
    assert "[5e-05, 1e-05]" in argv
    assert devices == ""


def test_one_process_trains_on_the_first_gpu_only_and_says_so(train_yaml, recorded, monkeypatch, capfd):
    monkeypatch.setattr(localjob, "visible_gpus", lambda: ["3", "5"])
    assert LocalJob(train_yaml, "local_single").launch() == 0
    assert recorded()[0] == "3"
    assert "world size 1: 1 process on GPU 3 (CUDA_VISIBLE_DEVICES=3)" in capfd.readouterr().err


def test_a_cpu_group_has_as_many_processes_as_asked_for(train_yaml, capsys):
    LocalJob(train_yaml, "local_single", cpu=True, topology=Topology(per_node=3)).launch(dryrun=True)
    captured = capsys.readouterr()
    line = words(captured.out)
    assert line[1:4] == ["torchrun", "--nproc_per_node=3", "--standalone"]
    assert line[line.index("--distributed-world-size") + 1] == "3"
    assert "world size 3: 3 processes on the CPU" in captured.err


def test_several_machines_are_part_of_the_world_size(train_yaml, capsys):
    topology = Topology(nodes=2, per_node=4, endpoint="node1:29500", run_id="x")
    LocalJob(train_yaml, "local_single", topology=topology).launch(dryrun=True)
    captured = capsys.readouterr()
    assert (
        "--nnodes=2 --nproc_per_node=4 --rdzv-endpoint=node1:29500 --rdzv-id=x --rdzv-backend=c10d train.py"
        in captured.out
    )
    assert "--distributed-world-size 8" in captured.out
    assert "world size 8: 2 nodes x 4 processes" in captured.err


def test_prediction_on_several_processes_is_refused():
    with pytest.raises(ConfigError, match="prediction runs in one process"):
        LocalJob("projects/retri/norton/test_vtt_zs.yaml", topology=Topology(per_node=2)).launch(dryrun=True)


def run(program: str) -> int:
    with Running() as running:
        running.start(Command(["shown"], [sys.executable, "-c", program]), [])
        return running.wait()


def test_the_exit_code_is_passed_on_and_the_failing_command_named(capsys):
    assert run("import sys; sys.exit(7)") == 7
    said = capsys.readouterr().err
    assert (
        f"exit code 7 from: {sys.executable} -c" in said and "error:" not in said
    )  # that it has said itself


def test_a_command_that_was_killed_could_not_say_so(capsys):
    assert run("import os; os.kill(os.getpid(), 9)") == 137
    assert (
        f"error: killed by SIGKILL (out of memory? see the kernel log): {sys.executable} -c"
        in capsys.readouterr().err
    )


def test_a_stop_with_a_saved_checkpoint_is_no_error(capsys):
    assert run("import sys; sys.exit(85)") == 85
    assert "stopped as asked, checkpoint saved (exit code 85)" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_the_launcher_reaches_the_command(tmp_path, number):
    ready = tmp_path / "ready"
    program = (
        f"import signal, sys, time; signal.signal({int(number)}, lambda *_: sys.exit(9)); "
        f"open({str(ready)!r}, 'w').close(); time.sleep(20)"
    )

    def send():
        while not ready.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=send).start()
    assert run(program) == 9


def test_the_stamp_changes_with_the_settings(train_yaml):
    assert LocalJob(train_yaml).stamp == LocalJob(train_yaml).stamp
    assert LocalJob(train_yaml).stamp != LocalJob(train_yaml, overrides=("dataset.max_len=48",)).stamp
