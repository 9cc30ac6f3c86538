"""run.sh with stand-ins for Python, the compiler and the disk: what it says, what it leaves behind. Nothing
is installed."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

FILES = ("run.sh", "requirements.txt", "requirements-fairseq.txt", "setup.py")
TOOLS = "bash dirname cat cksum find df awk mkdir rm mv touch head tail grep flock cp sleep chmod env".split()
PYTHON = r"""#!/bin/bash
echo "$*" >>"$CALLS"
case "$*" in
    *version_info*) echo "${FAKE_VERSION:-3.11}" ;;
    *sysconfig*) echo "$FAKE_INCLUDE" ;;
    --version) echo "Python ${FAKE_VERSION:-3.11}.7" ;;
    "-m venv "*) mkdir -p "$3/bin" "$3/lib/python3.11/site-packages"; cp "$0" "$3/bin/python" ;;
    *"pip install"*) [[ -z ${FAKE_PIP_SLEEP:-} ]] || sleep "$FAKE_PIP_SLEEP"
                     [[ -z ${FAKE_PIP_ERROR:-} ]] || { echo "$FAKE_PIP_ERROR"; exit 1; } ;;
    "-m pytest"* | "-m mmpt"*) echo "started: $*"; exit "${FAKE_JOB_CODE:-0}" ;;
esac
"""


class Machine:
    """A folder with run.sh in it, and a PATH that holds only what is put there."""

    def __init__(self, folder: Path):
        self.folder = folder / "project"
        self.bin = folder / "bin"
        self.include = folder / "include"
        for path in (self.folder, self.bin, self.include):
            path.mkdir()
        for name in FILES:
            shutil.copy(ROOT / name, self.folder / name)
        for name in TOOLS:
            if found := shutil.which(name):
                (self.bin / name).symlink_to(found)
        self.add("python3.11", PYTHON)
        self.add("g++", "#!/bin/bash\n")
        (self.include / "Python.h").touch()
        self.calls_file = folder / "calls"

    def add(self, name: str, script: str) -> None:
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(script)
        path.chmod(0o755)

    def start(self, *args: str, **env: str) -> subprocess.Popen:
        env = {"PATH": str(self.bin), "CALLS": str(self.calls_file), "FAKE_INCLUDE": str(self.include), **env}
        self.calls_file.write_text("")
        command = [str(self.folder / "run.sh"), *args]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        answer = partial(
            signal.signal, signal.SIGINT, signal.default_int_handler
        )  # a suite in the background ignores it; exec resets a handler
        return subprocess.Popen(command, env=env, start_new_session=True, preexec_fn=answer, **pipes)

    def run(self, *args: str, **env: str) -> tuple[int, str, str]:
        process = self.start(*args, **env)
        shown, errors = process.communicate(timeout=30)
        return process.returncode, shown, errors

    def refused(self, *args: str, **env: str) -> str:
        code, _, errors = self.run(*args, **env)
        assert code != 0
        return errors.strip().splitlines()[-1] if "removing" not in errors else errors

    def wait_for_pip(self) -> None:
        deadline = time.monotonic() + 10
        while not self.installs and time.monotonic() < deadline:
            time.sleep(0.02)

    @property
    def calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines()

    @property
    def installs(self) -> list[str]:
        return [call for call in self.calls if "pip install" in call]

    @property
    def venv(self) -> Path:
        return self.folder / ".venv"


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_a_first_run_sets_up_and_starts_the_tests_with_their_arguments(machine):
    code, shown, _ = machine.run("test", "-k", "two words")
    assert code == 0
    assert shown.splitlines()[-1] == "started: -m pytest -n 2 --dist loadfile -k two words"
    assert "[6/6]" in shown


def test_without_arguments_the_main_job_starts(machine):
    assert machine.run()[1].splitlines()[-1] == "started: -m mmpt.demo.main_job"


def test_the_exit_code_of_the_job_is_passed_on(machine):
    assert machine.run("test", FAKE_JOB_CODE="5")[0] == 5


def test_torch_and_build_tools_come_first_and_fairseq_without_its_dependencies(machine):
    machine.run("setup")
    first, second, fairseq, project = machine.installs
    assert re.search(r"torch==\S+ numpy==\S+ Cython==\S+ setuptools==\S+ wheel==\S+", first)
    assert "-r requirements.txt" in second
    assert "--no-deps --no-build-isolation -r requirements-fairseq.txt" in fairseq
    assert "--no-deps --no-build-isolation -e ." in project


def test_a_second_run_installs_nothing_and_is_quick(machine):
    machine.run("setup")
    start = time.perf_counter()
    assert machine.run("test")[0] == 0
    assert time.perf_counter() - start < 1
    assert machine.installs == []


def test_changed_requirements_are_installed_into_the_same_environment(machine):
    machine.run("setup")
    (machine.venv / "kept").touch()
    (machine.folder / "requirements.txt").open("a").write("# changed\n")
    assert machine.run("setup")[0] == 0
    assert len(machine.installs) == 4
    assert (machine.venv / "kept").exists()


def test_an_environment_made_in_another_folder_is_made_again(machine):
    machine.run("setup")
    moved = machine.folder.rename(machine.folder.with_name("moved"))
    machine.folder = moved
    (machine.venv / "stale").touch()
    assert machine.run("setup")[0] == 0
    assert not (machine.venv / "stale").exists()


def test_a_wrong_python_is_named_with_the_cure(machine):
    assert machine.refused(FAKE_VERSION="3.9") == (
        "error: Python 3.11 is needed, but python3.11 is Python 3.9. Install Python 3.11 and run: "
        "PYTHON=/path/to/python3.11 ./run.sh"
    )
    assert not machine.venv.exists()


def test_a_missing_python_is_named_with_the_cure(machine):
    (machine.bin / "python3.11").unlink()
    assert "Python 3.11 is needed, but python3.11 was not found" in machine.refused()


def test_the_python_variable_chooses_the_interpreter(machine):
    (machine.bin / "python3.11").rename(machine.folder / "my python")
    assert machine.run("setup", PYTHON=str(machine.folder / "my python"))[0] == 0


def test_a_missing_compiler_is_named_with_the_cure(machine):
    (machine.bin / "g++").unlink()
    assert (
        "A C++ compiler is needed to build fairseq, and g++ was not found. Install g++" in machine.refused()
    )
    assert not machine.venv.exists()


def test_missing_python_headers_are_named_with_the_cure(machine):
    (machine.include / "Python.h").unlink()
    assert "Python.h is not there. Install them (Debian, Ubuntu: python3.11-dev)" in machine.refused()


def test_a_full_disk_is_found_before_anything_is_installed(machine):
    machine.add("df", "#!/bin/bash\nprintf 'Filesystem 1024-blocks Used Available\\n/dev/x 9 9 2097152\\n'\n")
    assert "The environment needs 6 GB of disk" in machine.refused()
    assert machine.installs == []


@pytest.mark.parametrize(
    ("said", "cure"),
    [
        ("OSError: [Errno 28] No space left on device", "the disk is full. Free 6 GB"),
        (
            "ERROR: No matching distribution found for torch==2.13.0",
            "a download did not succeed. Check the network",
        ),
        ("BadZipFile: bad magic", "a downloaded file is damaged"),
        ("something else went wrong", "run again once that is cured: something else went wrong"),
    ],
)
def test_a_failed_installation_ends_in_one_sentence_and_leaves_no_environment(machine, said, cure):
    errors = machine.refused(FAKE_PIP_ERROR=said)
    assert "error: [2/6] installing torch and build tools failed" in errors
    assert cure in errors
    assert not machine.venv.exists()
    assert said in (machine.folder / "runs/setup.log").read_text()


def test_after_a_failure_the_next_run_starts_over(machine):
    machine.refused(FAKE_PIP_ERROR="x")
    assert machine.run("test")[0] == 0
    assert len(machine.installs) == 4


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_set_up_that_is_stopped_in_the_middle_is_never_trusted(machine, how):
    process = machine.start("test", FAKE_PIP_SLEEP="20")
    machine.wait_for_pip()
    os.killpg(process.pid, how)
    process.communicate(timeout=30)
    assert machine.venv.exists() == (how == signal.SIGKILL)
    assert machine.run("test")[0] == 0
    assert len(machine.installs) == 4


def test_an_environment_that_run_sh_did_not_make_is_left_alone(machine):
    (machine.venv / "precious").mkdir(parents=True)
    assert ".venv exists and was not made by run.sh. Move it away" in machine.refused()
    assert (machine.venv / "precious").exists()


def test_torchaudio_is_detected_with_the_cure(machine):
    machine.run("setup")
    (machine.venv / "lib/python3.11/site-packages/torchaudio").mkdir()
    assert "pip uninstall -y torchaudio" in machine.refused("test")


def test_an_unknown_command_lists_the_known_ones(machine):
    assert (
        machine.refused("tset")
        == "error: unknown command tset. Use ./run.sh, ./run.sh test or ./run.sh setup."
    )


def test_continuous_integration_runs_the_documented_test_command():
    assert "./run.sh test" in (ROOT / ".ci/run").read_text()


def test_the_tested_set_is_pinned_and_free_of_hosts_and_of_torchaudio():
    lines = [
        line
        for name in FILES[1:3]
        for line in (ROOT / name).read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    assert not [line for line in lines if "torchaudio" in line]
    assert not [name for name in FILES if "://" in (ROOT / name).read_text()]


def test_the_pinned_set_lies_within_the_ranges_of_setup_py(monkeypatch):
    named = {}
    monkeypatch.setattr("setuptools.setup", lambda **arguments: named.update(arguments))
    runpy.run_path(str(ROOT / "setup.py"))
    lines = [
        line
        for name in FILES[1:3]
        for line in (ROOT / name).read_text().splitlines()
        if "==" in line and line[0] != "#"
    ]
    pinned = {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines}
    for wanted in map(Requirement, [*named["install_requires"], *named["extras_require"]["test"]]):
        assert wanted.specifier.contains(pinned[canonicalize_name(wanted.name)]), wanted


def test_a_second_run_waits_for_the_first(machine):
    first = machine.start("setup", FAKE_PIP_SLEEP="0.3")
    machine.wait_for_pip()
    shown = machine.run("setup")[1]
    assert first.wait(timeout=10) == 0
    assert shown == "waiting for another run.sh to finish its set-up\n"
