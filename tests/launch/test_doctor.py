"""The doctor: what is wrong, with the cure, and an exit code."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from mmpt.launch import collectives, doctor, install_fairseq
from mmpt.launch.torchrun import Topology
from mmpt_cli.doctor import main
from tests.ports import free_port


def found(findings, level):
    return [(finding.text, finding.cure) for finding in findings if finding.level == level]


def test_this_machine_can_train():
    assert not found(doctor.python(), "error")
    assert not found(doctor.torch_and_gpus(), "error")


def test_errors_give_exit_code_one_and_every_one_has_its_cure(capsys, monkeypatch):
    told = [doctor.ok("fine"), doctor.Finding("warning", "so so", "rest")]
    monkeypatch.setattr(doctor, "findings", lambda *args: iter(told))
    assert main([]) == 0
    told.append(doctor.Finding("error", "broken", "mend it"))
    assert main([]) == 1
    assert "error    broken\n         cure: mend it\n" in capsys.readouterr().out


def test_a_missing_package_is_an_error(monkeypatch):
    monkeypatch.setattr(doctor, "PACKAGES", ("no-such-package",))
    cure = "Run ./run.sh setup, or: pip install -r requirements.txt"
    assert found(doctor.python(), "error") == [("no-such-package is not installed", cure)]


def loads(monkeypatch, stderr):
    monkeypatch.setattr(
        doctor.subprocess,
        "run",
        lambda *args, **options: subprocess.CompletedProcess([], 1 if stderr else 0, "", stderr),
    )


def test_a_torchaudio_that_breaks_imports_is_named(monkeypatch):
    loads(monkeypatch, "File torchaudio/__init__.py\nOSError: libc10_cuda.so: cannot open shared object file")
    (text, cure), *_ = found(doctor.imports(), "error")
    assert "libc10_cuda.so" in text
    assert cure.endswith("-m pip uninstall -y torchaudio")


def test_a_missing_fairseq_comes_with_the_line_that_installs_it(monkeypatch):
    loads(monkeypatch, "ModuleNotFoundError: No module named 'fairseq'")
    assert "mmpt doctor --fix fairseq" in found(doctor.imports(), "error")[0][1]


def test_a_fix_is_made_before_anything_is_looked_at(monkeypatch, capsys):
    monkeypatch.setattr(install_fairseq, "install_fairseq", lambda: print("installing"))
    monkeypatch.setattr(doctor, "findings", lambda *args: iter([doctor.ok("looked")]))
    assert main(["--fix", "fairseq"]) == 0
    assert capsys.readouterr().out.startswith("installing\nok       looked")


@pytest.mark.parametrize(("free_gb", "level"), [(100, "ok"), (10, "warning"), (1, "error")])
def test_little_disk_is_a_warning_and_hardly_any_an_error(monkeypatch, tmp_path, free_gb, level):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=free_gb * 2**30))
    assert doctor.disk(tmp_path / "not" / "there").level == level


def test_little_shared_memory_and_few_open_files_are_warnings(monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(
        doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=2**26) if path == "/dev/shm" else usage
    )
    monkeypatch.setattr(doctor.resource, "getrlimit", lambda kind: (1024, 2048))
    cures = [cure for _, cure in found(doctor.machine(), "warning")]
    assert any("--shm-size=8g" in cure for cure in cures)
    assert any("hard limit of 4096 or more" in cure for cure in cures)


def test_a_low_soft_limit_of_open_files_is_no_trouble_where_it_can_be_raised(monkeypatch):
    monkeypatch.setattr(doctor.resource, "getrlimit", lambda kind: (1024, 65536))
    assert "1024 open files, 65536 where shards are read" in [finding.text for finding in doctor.machine()]


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.lst").touch()
    (tmp_path / "feat").mkdir()
    (tmp_path / "feat" / "narration.train_0_data.npy").touch()

    def write(text):
        (tmp_path / "x.yaml").write_text(text)
        return "x.yaml"

    return write


def test_each_file_that_is_not_there_is_named_with_its_key(project):
    data = "dataset: {train_path: gone.lst, val_path: there.lst, vfeat_dir: nowhere}"
    path = project(data + "\nfairseq: {checkpoint: {restore_file: gone.pt}}")
    texts = [text for text, _ in found(doctor.project(path, cpu=True), "error")]
    assert texts == [
        "x.yaml: dataset.train_path: gone.lst does not exist",
        "x.yaml: dataset.vfeat_dir: nowhere does not exist",
        "x.yaml: fairseq.checkpoint.restore_file: gone.pt does not exist",
    ]


def test_a_token_prefix_is_there_when_a_file_begins_with_it(project):
    assert not found(doctor.project(project("dataset: {tfeat_dir: feat/narration.}"), cpu=True), "error")
    assert found(doctor.project(project("dataset: {tfeat_dir: feat/other.}"), cpu=True), "error")


def test_a_wrong_key_is_an_error_of_the_file(project):
    assert (
        "Did you mean dataset.max_len"
        in found(doctor.project(project("dataset: {max_lenn: 3}"), cpu=True), "error")[0][0]
    )


def test_a_tokenizer_folder_without_vocabulary_is_an_error(project, tmp_path):
    (tmp_path / "feat" / "config.json").touch()
    assert (
        "no vocab.txt"
        in found(doctor.project(project("dataset: {bert_name: feat}"), cpu=True), "error")[0][0]
    )


def test_a_tokenizer_folder_as_transformers_writes_it_today_is_fine(project, tmp_path):
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / "feat" / name).touch()
    errors = found(doctor.project(project("dataset: {bert_name: feat}"), cpu=True), "error")
    assert not [text for text, _ in errors if "bert_name" in text]


def test_two_ranks_talk_to_each_other():
    (finding,) = doctor.collectives(Topology(per_node=2), 0.2, cpu=True)
    assert finding.level == "ok"
    assert finding.text.startswith("2 ranks (gloo): ")


def test_ranks_of_two_machines_talk_to_each_other_and_one_of_them_measures():  # two threads stand for them
    topology = Topology(2, 1, f"127.0.0.1:{free_port()}", "doctor")
    with ThreadPoolExecutor(2) as machines:
        found = machines.map(lambda machine: list(doctor.collectives(topology, 0.2, cpu=True)), range(2))
        findings = [finding for (finding,) in found]
    assert [finding.level for finding in findings] == ["ok", "ok"]
    said = sorted(finding.text for finding in findings)
    assert said[0].startswith("2 ranks (gloo) on 2 machines: ") and "sums of 16 MB" in said[0]
    assert said[1] == "2 ranks (gloo) on 2 machines: those of this machine took part"


def test_ranks_that_fail_are_an_error_with_what_they_said(monkeypatch, tmp_path):
    program = tmp_path / "rank.py"
    program.write_text("raise OSError('no route to host')")
    monkeypatch.setattr(collectives, "AS_RANK", (str(program),))
    (finding,) = doctor.collectives(Topology(per_node=2), 0.1, cpu=True)
    assert finding.level == "error"
    assert "no route to host" in finding.text
    assert "GLOO_SOCKET_IFNAME" in finding.cure
