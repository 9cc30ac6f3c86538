"""The launcher: shipped lines, pipelines, dry runs that write nothing."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys

import pytest

import locallaunch
from mmpt.config import recursive_config
from mmpt.launch import pipeline
from tests.conftest import GOLDEN, ROOT

LINES_FILE = GOLDEN / "norton_launch_lines.json"
LINES = json.loads(LINES_FILE.read_text()) if LINES_FILE.exists() else {}


@pytest.fixture
def in_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A small pipeline: two groups over two templates."""
    monkeypatch.chdir(tmp_path)
    write(
        tmp_path / "projects/task/train.yaml",
        "fairseq: {checkpoint: {save_dir: runs/task/a, restore_file: old/runs/task}, common: {cpu: true}}\n"
        "dataset: {train_path: x}\nmodel: {model_cls: MMFusionSeparate}\n"
        "loss: {loss_cls: GRAMLoss, modalities: [runs/task/b]}\n",
    )
    write(
        tmp_path / "projects/task/test_a.yaml",
        "task_type: local_predict\neval: {save_path: runs/task/eval}\ndataset: {split: test}\n",
    )
    return write(
        tmp_path / "projects/p.yaml",
        "base_dir: task\nproject_dir: p\nrun_task: [train.yaml, [gone.yaml, test_a.yaml]]\ntask_group:\n"
        "  pretrain: {task_list: [train.yaml], dataset: {max_len: 96}}\n  test: {task_list: "
        "[test_a.yaml]}\n  empty: {task_list: }\n",
    )


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path.relative_to(path.parents[1]) if path.parent.name == "projects" else path)


def corrected(line: str, job_type: str) -> str:
    """The golden line with what differs on purpose: several processes start through torchrun and train.py,
    because fairseq-train alone infers the number of processes from the GPUs it sees. (`fp16: false`, several
    learning rates and files written by a dry run were wrong too; no golden line shows them: see
    tests/launch/test_local.py and the dry-run tests below.)"""
    if job_type != "local_small":
        return line
    return line.replace(
        "launching fairseq-train", "launching torchrun --nproc_per_node=2 --standalone train.py"
    )


@pytest.mark.parametrize("case", sorted(LINES))
def test_golden_norton_launch_lines_are_what_a_dry_run_shows(case, in_repository, capsys):
    path, job_type = case.split("|")
    choice = [] if job_type == "pipeline" else ["--jobtype", job_type]
    assert locallaunch.main([path, "--dryrun", *choice]) == 0
    assert capsys.readouterr().out.splitlines() == [corrected(line, job_type) for line in LINES[case]]


@pytest.mark.parametrize("path", ["projects/mtm/vlm.yaml", "projects/retri/videoclip.yaml"])
def test_what_a_pipeline_writes_is_what_its_files_resolve_to_without_being_written(
    path, in_repository, monkeypatch
):
    written = {}
    monkeypatch.setattr(pipeline, "write_yaml", lambda target, tree, header: written.update({target: tree}))
    pipeline.Pipeline(path).derive(dryrun=False)
    assert len(written) >= 14
    for target, tree in written.items():
        assert not target.exists()
        assert recursive_config(target) == tree


def test_every_shipped_job_has_a_dry_run(in_repository, capsys):
    jobs = (ROOT / "projects/retri/norton").glob("*.yaml")
    paths = [str(path.relative_to(ROOT)) for path in jobs if "how2align" not in path.name]
    for name in ("mtm/vlm", "retri/videoclip"):
        groups = recursive_config(f"projects/{name}.yaml")["task_group"].values()
        paths += [f"projects/{name}/{file}" for group in groups for file in group["task_list"]]
    assert locallaunch.main([",".join(paths), "--dryrun"]) == 0
    assert capsys.readouterr().out.count("\nlaunching ") == len(paths)


def test_a_dry_run_is_quick_and_imports_no_torch():
    code = (
        "import sys, locallaunch; locallaunch.main(sys.argv[1:]); print([m for m in ('torch', 'numpy', "
        "'fairseq') if m in sys.modules])"
    )
    command = [
        sys.executable,
        "-c",
        code,
        "projects/retri/norton/how2_pretrain.yaml",
        "--jobtype",
        "local_single",
        "--dryrun",
    ]
    seconds = []
    for _ in range(3):  # CPU time, and the best of three: other work on the machine is not what is measured
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert shown.splitlines()[-1] == "[]"
    assert min(seconds) < 0.6


def test_a_dry_run_writes_nothing(project, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    assert locallaunch.main([f"{project},projects/task/train.yaml", "--dryrun", "--run"]) == 0
    assert sorted(tmp_path.rglob("*")) == before


def test_a_pipeline_merges_groups_over_templates_and_moves_run_folders(project):
    assert locallaunch.main([project]) == 0
    derived = recursive_config("projects/p/train.yaml")
    assert derived["dataset"] == {"train_path": "x", "max_len": 96}
    assert derived["fairseq"]["checkpoint"] == {"save_dir": "runs/p/a", "restore_file": "old/runs/task"}
    assert derived["loss"]["modalities"] == ["runs/task/b"]
    assert recursive_config("projects/p/test_a.yaml")["eval"] == {"save_path": "runs/p/eval"}


def test_an_empty_task_group_is_skipped_with_a_warning(project, capsys):
    locallaunch.main([project])
    assert "[warning] empty has no task_list specified." in capsys.readouterr().out


def test_a_pipeline_alone_launches_nothing(project, monkeypatch):
    monkeypatch.setattr(pipeline.LocalJob, "launch", lambda *args: pytest.fail("launched"))
    assert locallaunch.main([project]) == 0


@pytest.fixture
def launched(monkeypatch):
    """Jobs are noted down instead of run; `codes` gives their exit codes by file name. Training leaves a
    checkpoint."""

    class Launched(list):
        codes: dict[str, int] = {}

    jobs = Launched()

    def launch(job, dryrun):
        jobs.append(job.path)
        code = jobs.codes.get(job.path.split("/")[-1], 0)
        if not (code or dryrun or job.is_prediction):
            job.folder.mkdir(parents=True, exist_ok=True)
            (job.folder / "checkpoint_last.pt").touch()
        return code

    monkeypatch.setattr(pipeline.LocalJob, "launch", launch)
    return jobs


def test_stages_run_in_order_and_missing_ones_are_named(project, launched, capsys):
    assert locallaunch.main([project, "--run"]) == 0
    assert launched == ["projects/p/train.yaml", "projects/p/test_a.yaml"]
    assert "run_task names projects/p/gone.yaml" in capsys.readouterr().out


def test_the_first_failure_stops_the_run_and_gives_its_exit_code(project, launched):
    launched.codes = {"train.yaml": 3}
    assert locallaunch.main([project, "--run"]) == 3
    assert launched == ["projects/p/train.yaml"]


def test_a_pipeline_run_again_goes_on_at_the_stage_that_failed(project, launched, capsys):
    launched.codes = {"test_a.yaml": 4}
    assert locallaunch.main([project, "--run"]) == 4
    launched.codes = {}
    launched.clear()
    assert locallaunch.main([project, "--run"]) == 0
    assert launched == ["projects/p/test_a.yaml"]
    assert "projects/p/train.yaml: done already (runs/p/a/.done-train-" in capsys.readouterr().out


def test_a_stage_with_other_settings_runs_again(project, launched):
    locallaunch.main([project, "--run"])
    launched.clear()
    locallaunch.main([project, "--run", "--set", "fairseq.optimization.max_epoch=3"])
    assert "projects/p/train.yaml" in launched


def test_once_a_stage_runs_the_stages_after_it_run_again(project, launched, tmp_path):
    locallaunch.main([project, "--run"])
    launched.clear()
    next((tmp_path / "runs/p/a").glob(".done-train-*")).unlink()
    locallaunch.main([project, "--run"])
    assert launched == ["projects/p/train.yaml", "projects/p/test_a.yaml"]


def test_a_dry_run_of_a_pipeline_leaves_no_stamp(project, launched, tmp_path):
    locallaunch.main([project])
    before = sorted(tmp_path.rglob("*"))
    assert locallaunch.main([project, "--run", "--dryrun"]) == 0
    assert sorted(tmp_path.rglob("*")) == before


def test_several_files_run_in_the_order_given(project, launched):
    locallaunch.main(["projects/task/test_a.yaml,projects/task/train.yaml"])
    assert launched == ["projects/task/test_a.yaml", "projects/task/train.yaml"]


def test_a_mistake_in_the_last_file_is_found_before_the_first_is_run(project, monkeypatch, capsys):
    monkeypatch.setattr(pipeline.LocalJob, "launch", lambda *args: pytest.fail("launched"))
    assert locallaunch.main(["projects/task/train.yaml,projects/gone.yaml"]) == 2
    assert "error: projects/gone.yaml: no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["job.py"], "expected a .yaml file. Start Python programs directly: python job.py"),
        (
            ["projects/task/train.yaml", "--set", "dataset.max_lenn=3"],
            "--set: dataset.max_lenn: unknown key. Did you mean",
        ),
        (
            ["projects/p.yaml", "--set", "dataset.max_len=3"],
            "--set changes jobs, and without --run a pipeline starts none",
        ),
        (
            ["projects/task/train.yaml", "--nnodes", "2"],
            "--nnodes 2: the machines need a place to meet. Add --rdzv-endpoint HOST:PORT",
        ),
        (["projects/task/train.yaml", "--rdzv-endpoint", "a:1"], "are for several machines. Add --nnodes N"),
        (
            ["projects/task/train.yaml", "--nnodes=2", "--rdzv-endpoint=a:1", "--node-rank=2"],
            "--node-rank 2: expected 0 to 1",
        ),
        (
            ["projects/task/train.yaml", "--slurm", "tiny"],
            "has no resource set 'tiny'; it has small, big, huge, cpu",
        ),
    ],
)
def test_mistakes_are_one_error_and_exit_code_two(project, capsys, args, message):
    assert locallaunch.main(args) == 2
    assert message in capsys.readouterr().err


def test_a_pipeline_without_project_dir_is_refused(project, tmp_path, capsys):
    (tmp_path / "projects/q.yaml").write_text("base_dir: task\n")
    assert locallaunch.main(["projects/q.yaml"]) == 2
    assert "project_dir is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--nproc-per-node", "0"], "whole number of at least 1, got '0'"),
        (["--nnodes", "2", "--rdzv-endpoint", "node1"], "expected HOST:PORT, got 'node1'"),
    ],
)
def test_wrong_arguments_are_refused_by_the_command_line(project, capsys, args, message):
    with pytest.raises(SystemExit, match="2"):
        locallaunch.main(["projects/task/train.yaml", *args])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["--slurm", "big", "--jobtype", "local_small"],
            "--slurm big and --jobtype local_small say two things",
        ),
        (
            ["--slurm", "big", "--nnodes", "2", "--rdzv-endpoint", "a:1"],
            "processes and machines of a SLURM job stand in",
        ),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(project, capsys, args, message):
    assert locallaunch.main(["projects/task/train.yaml", *args]) == 2
    assert message in capsys.readouterr().err


STORED = {
    "slurm_huge": ["projects/retri/norton/how2_pretrain.yaml", "--slurm", "huge"],
    "slurm_predict": ["projects/retri/norton/test_vtt_zs.yaml", "--jobtype", "slurm"],
    "slurm_cpu": ["projects/toy/norton.yaml", "--slurm", "cpu"],
    "two_nodes": [
        "projects/retri/norton/how2_pretrain.yaml",
        "--nnodes",
        "2",
        "--nproc-per-node",
        "8",
        "--rdzv-endpoint",
        "node1:29500",
    ],
    "second_of_two": [
        *("projects/toy/norton.yaml", "--cpu", "--nnodes", "2", "--nproc-per-node", "4"),
        *("--rdzv-endpoint", "node1:29500", "--rdzv-id", "toy", "--node-rank", "1"),
    ],
}


@pytest.mark.parametrize("name", STORED)
def test_dry_runs_of_cluster_jobs_are_as_stored(name, in_repository, capsys):
    """To store a changed text: MMPT_STORE=1 pytest tests/test_locallaunch.py -k stored"""
    assert locallaunch.main([*STORED[name], "--dryrun"]) == 0
    shown = capsys.readouterr()
    text = (shown.out + shown.err).replace(sys.executable, "PYTHON").replace(str(ROOT), "REPOSITORY")
    file = ROOT / "tests/dryruns" / f"{name}.txt"
    if os.environ.get("MMPT_STORE"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert text == file.read_text()
