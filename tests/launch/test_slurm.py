"""sbatch files: what they ask for, and what they do when the cluster takes the machine away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from mmpt.config import ConfigError
from mmpt.launch.heartbeat import STOOD
from mmpt.launch.local import LocalJob
from mmpt.launch.slurm import Resources, SlurmJob
from tests.conftest import ROOT

JOB = "projects/toy/norton.yaml"


@pytest.fixture(autouse=True)
def in_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A folder of commands that stand in for SLURM's."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def add(name, text):
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)

    return add


@pytest.fixture
def table(tmp_path):
    def write(text):
        path = tmp_path / "resources.yaml"
        path.write_text(text)
        return path

    return write


def cpu_job(tmp_path, **options):
    return SlurmJob(
        LocalJob(JOB, "slurm", overrides=(f"fairseq.checkpoint.save_dir={tmp_path}/run",)), "cpu", **options
    )


def test_the_table_has_the_last_word_on_options(table):
    path = table(
        "mine: {gpus_per_node: 1, setup: [module load cuda], sbatch: {partition: a, signal: 'B:USR1@600', "
        "exclusive: true}}"
    )
    text = SlurmJob(LocalJob("projects/retri/norton/how2_pretrain.yaml"), "mine", path).text()
    for line in (
        "#SBATCH --partition=a",
        "#SBATCH --signal=B:USR1@600",
        "#SBATCH --exclusive",
        "module load cuda",
        "#SBATCH --requeue",
    ):
        assert f"\n{line}\n" in text
    assert "@120" not in text


def test_a_line_break_in_a_folder_name_begins_no_line_of_the_shell(tmp_path):
    job = LocalJob(JOB, "slurm", overrides=(f'fairseq.checkpoint.save_dir="{tmp_path}/a\\ntouch evil"',))
    with pytest.raises(ConfigError, match="control characters"):
        SlurmJob(job, "cpu").text()


def test_the_set_that_the_project_file_names_is_taken():
    assert Resources.load("big").topology().world_size == 8
    assert (
        "#SBATCH --gpus-per-node=8" in SlurmJob(LocalJob("projects/retri/norton/how2_pretrain.yaml")).text()
    )


def test_several_nodes_state_the_world_size_and_meet_at_the_first_one():
    text = SlurmJob(LocalJob("projects/retri/norton/how2_pretrain.yaml"), "huge").text()
    assert "--distributed-world-size 64 " in text
    assert '--rdzv-endpoint="$head:$port" --rdzv-id="$SLURM_JOB_ID"' in text


def test_a_prediction_takes_one_gpu_of_a_big_set():
    text = SlurmJob(LocalJob("projects/retri/norton/test_vtt_zs.yaml"), "huge").text()
    assert "#SBATCH --nodes=1\n" in text and "#SBATCH --gpus-per-node=1\n" in text
    assert "-m mmpt_cli.predict projects/retri/norton/test_vtt_zs.yaml &" in text


@pytest.mark.parametrize(
    ("job", "resources", "message"),
    [
        (
            LocalJob("projects/retri/norton/how2_pretrain.yaml"),
            "cpu",
            "trains on GPUs and resource set cpu has none. Add --cpu",
        ),
        (LocalJob(JOB), "big", "runs on the CPU and resource set big would reserve GPUs"),
        (LocalJob(JOB), None, "slurm_config is missing"),
        (LocalJob(JOB), "tiny", "no resource set 'tiny'; it has small, big, huge, cpu"),
    ],
)
def test_jobs_and_resources_that_do_not_fit_are_refused(job, resources, message):
    with pytest.raises(ConfigError, match=message):
        SlurmJob(job, resources).text()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{partition: a}", "mine.partition: unknown key. Known: nodes, .*Options of sbatch go under"),
        ("{nodes: 0}", "mine.nodes: expected a finite number and at least 1, got 0"),
        ("{gpus_per_node: two}", "mine.gpus_per_node: expected a whole number, got 'two'"),
        ("{sbatch: [a]}", r"mine.sbatch: expected `key: value` lines, got \['a'\]"),
    ],
)
def test_mistakes_in_the_table_are_named(table, entry, message):
    with pytest.raises(ConfigError, match=message):
        Resources.load("mine", table(f"mine: {entry}"))


def test_a_submitted_job_gives_its_number_and_a_dry_run_writes_nothing(tmp_path, programs, capsys):
    programs("sbatch", f'echo "$@" > {tmp_path}/arguments; echo "4242;cluster"')
    job = cpu_job(tmp_path, after=("1", "2"))
    assert job.launch(dryrun=True) == JOB
    assert not (tmp_path / "run").exists()
    assert job.launch() == "4242"
    assert (tmp_path / "arguments").read_text() == f"--parsable --dependency=afterok:1:2 {job.file}\n"
    assert job.file.read_text() == job.text()
    assert (
        f"submitted as job 4242; its output: {tmp_path}/run/slurm/norton-4242.log" in capsys.readouterr().out
    )


def test_a_machine_without_slurm_and_a_refused_job_are_errors_with_a_cure(tmp_path, programs):
    with pytest.raises(ConfigError, match="sbatch was not found: this machine cannot submit"):
        cpu_job(tmp_path).launch()
    programs("sbatch", "echo 'invalid partition' >&2; exit 1")
    with pytest.raises(
        ConfigError, match=r"sbatch refused .*norton.sbatch \(exit code 1\): invalid partition"
    ):
        cpu_job(tmp_path).launch()


@pytest.fixture
def batch(tmp_path, programs):
    """Runs a job's batch script with a stand-in for the job step; `scontrol` notes what it is asked."""

    def run(step, send=None):
        programs("srun", step)
        programs("scontrol", f'echo "$@" >> {tmp_path}/scontrol')
        script = tmp_path / "job.sbatch"
        job = cpu_job(tmp_path, stamped=True)
        job.job.folder.mkdir(exist_ok=True)
        script.write_text(job.text())
        process = subprocess.Popen(
            ["bash", str(script)], env={**os.environ, "SLURM_JOB_ID": "77", "SLURM_CPUS_PER_TASK": "1"}
        )
        if send:
            deadline = time.monotonic() + 20
            while not (tmp_path / "ready").exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            process.send_signal(send)
        code = process.wait(timeout=30)
        asked = (tmp_path / "scontrol").read_text() if (tmp_path / "scontrol").exists() else ""
        return code, asked, job.job.is_done()

    return run


SAVES = (
    "trap 'echo saved > {0}/saved; exit 85' USR1; touch {0}/ready; for ((i = 0; i < 200; i++)); do "
    "sleep 0.05; done; exit 9"
)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_saves_through_the_job_step_and_requeues(batch, tmp_path, number):
    assert batch(SAVES.format(tmp_path), number) == (85, "requeue 77\n", False)
    assert (tmp_path / "saved").exists()


def test_a_signal_before_training_can_save_requeues_as_well(batch, tmp_path):
    assert batch(f"touch {tmp_path}/ready; exec sleep 20", signal.SIGUSR1)[1] == "requeue 77\n"


def test_a_job_that_ends_well_is_stamped_and_not_requeued(batch, tmp_path):
    assert batch(f"touch {tmp_path}/run/checkpoint_last.pt") == (0, "", True)


@pytest.mark.parametrize(("before", "asked"), [("0", "requeue 77\n"), ("8", "")])
def test_a_job_that_stood_still_comes_back_but_not_for_ever(batch, monkeypatch, before, asked):
    monkeypatch.setenv("SLURM_RESTART_COUNT", before)
    assert batch(f"exit {STOOD}") == (STOOD, asked, False)


def test_a_failure_is_neither_stamped_nor_requeued(batch):
    assert batch("exit 3") == (3, "", False)


def test_the_step_is_the_command_of_this_interpreter(batch, tmp_path):
    batch(f'printf "%s\\n" "$@" > {tmp_path}/words')
    words = (tmp_path / "words").read_text().splitlines()
    assert words[:4] == ["--kill-on-bad-exit=1", sys.executable, "-m", "mmpt.launch.torchrun"]
    assert words[words.index("--adam-betas") + 1] == "(0.9, 0.98)"
