"""run.sh with stand-ins for Python and the disk: what it says, what it leaves behind; nothing is
installed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT, project_table

FILES = ("run.sh", "requirements.txt", "requirements-fairseq.txt", "pyproject.toml", "setup.py")
TOOLS = "bash dirname cat cksum find df awk mkdir rm mv touch head tail grep flock cp sleep chmod env".split()
PYTHON = r"""#!/bin/bash
version=${FAKE_VERSION:-3.11}
echo "$*" >>"$CALLS"
case "$*" in
    *ensurepip*) [[ $version != broken ]] || exit 127
                 [[ $version != 3.9 ]] || { echo "is Python 3.9"; exit; }
                 [[ $version != bare ]] || { echo "lacks its venv package"; exit; }
                 echo usable ;;
    *version_info*) echo "$version" ;;
    --version) echo "Python $version.7" ;;
    "-m venv "*) mkdir -p "$3/bin" "$3/lib/python$version/site-packages"
                 { echo '#!/bin/bash'; echo "FAKE_VERSION=$version"; tail -n +2 "$0"; } >"$3/bin/python"
                 chmod +x "$3/bin/python" ;;
    *"pip install"*) [[ -z ${FAKE_PIP_SLEEP:-} ]] || sleep "$FAKE_PIP_SLEEP"
                     [[ -z ${FAKE_PIP_ERROR:-} ]] || { echo "$FAKE_PIP_ERROR"; exit 1; } ;;
    "-c import triton") exit "${FAKE_NO_TRITON:-0}" ;;
    "-m pytest"* | "-m mmpt"*) echo "started: $*"; exit "${FAKE_JOB_CODE:-0}" ;;
esac
"""


class Machine:
    """A folder with run.sh in it, and a PATH that holds only what is put there."""

    def __init__(self, folder: Path):
        self.folder = folder / "project"
        self.bin = folder / "bin"
        for path in (self.folder, self.bin):
            path.mkdir()
        for name in FILES:
            shutil.copy(ROOT / name, self.folder / name)
        for name in TOOLS:
            if found := shutil.which(name):
                (self.bin / name).symlink_to(found)
        self.add("python3.11", PYTHON)
        self.calls_file = folder / "calls"

    def add(self, name: str, script: str) -> None:
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(script)
        path.chmod(0o755)

    def add_python(self, name: str, version: str) -> None:
        self.add(name, PYTHON.replace("${FAKE_VERSION:-3.11}", version))

    def start(self, *args: str, **env: str) -> subprocess.Popen:
        env = {"PATH": str(self.bin), "CALLS": str(self.calls_file), **env}
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
    def version(self) -> str:
        """Of the environment's Python."""
        return next((self.venv / "lib").iterdir()).name.removeprefix("python")

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
    assert machine.run()[1].splitlines()[-1] == "started: -m mmpt_cli demo"


def test_the_exit_code_of_the_job_is_passed_on(machine):
    assert machine.run("test", FAKE_JOB_CODE="5")[0] == 5


def test_torch_and_build_tools_come_first_and_fairseq_without_its_dependencies(machine):
    machine.run("setup")
    first, second, fairseq, project = machine.installs
    assert first.endswith("-c requirements.txt torch setuptools wheel")
    assert "-r requirements.txt" in second
    assert "--no-deps --no-build-isolation -r requirements-fairseq.txt" in fairseq
    assert "--no-deps --no-build-isolation -e ." in project


def test_the_tests_alone_install_triton_where_torch_has_not_brought_it(machine):
    machine.run("setup", FAKE_NO_TRITON="1")
    assert not [line for line in machine.installs if "triton" in line]
    code, shown, _ = machine.run("test", FAKE_NO_TRITON="1")
    assert code == 0 and "installing Triton" in shown
    assert len(machine.installs) == 1 and " triton==" in machine.installs[0]
    machine.run("test")
    assert machine.installs == []


def test_a_second_run_installs_nothing_and_is_quick(machine):
    machine.run("setup")
    start = time.perf_counter()
    assert machine.run("test")[0] == 0
    assert time.perf_counter() - start < 1
    assert machine.installs == []


def test_the_set_up_ends_by_saying_how_a_shell_enters_it(machine):
    assert [machine.run("setup")[1].splitlines()[-1].endswith("source .venv/bin/activate") for _ in "ab"] == [
        True
    ] * 2


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


def test_fairseq_is_built_without_its_compiled_parts(machine):
    machine.add("env", f'#!/bin/bash\necho "env $*" >>"$CALLS"\nexec {shutil.which("env")} "$@"\n')
    machine.run("setup")
    (line,) = [call for call in machine.calls if call.startswith("env ")]
    assert line.startswith("env READTHEDOCS=1 .venv/bin/python -m pip install") and "--no-cache-dir" in line


def test_neither_a_compiler_nor_python_headers_are_asked_for():
    said = (ROOT / "run.sh").read_text()
    assert not re.search(r"g\+\+|CXX|Python\.h|Cython|ninja", said)


def test_a_wrong_python_is_named_with_the_cure(machine):
    machine.add_python("python3.11", "3.9")
    assert machine.refused() == (
        "error: Python 3.10 to 3.14 is needed; python3.11 is Python 3.9. "
        "Install one (3.11 is tried most) and run: PYTHON=/path/to/python3.11 ./run.sh"
    )
    assert not machine.venv.exists()


def test_a_missing_python_is_named_with_the_cure(machine):
    (machine.bin / "python3.11").unlink()
    assert "Python 3.10 to 3.14 is needed; python3 was not found. Install one" in machine.refused()


@pytest.mark.parametrize("version", ["3.10", "3.12", "3.13", "3.14"])
def test_any_python_that_is_there_will_do(machine, version):
    (machine.bin / "python3.11").unlink()
    machine.add_python(f"python{version}", version)
    assert machine.run("setup")[0] == 0
    assert machine.version == version


def test_of_several_pythons_the_most_tried_is_taken(machine):
    machine.add_python("python3.12", "3.12")
    machine.run("setup")
    assert machine.version == "3.11"


@pytest.mark.parametrize("fault", ["broken", "bare"])
def test_a_python_that_does_not_start_or_has_no_venv_is_passed_over(machine, fault):
    machine.add_python("python3.11", fault)
    machine.add_python("python3.13", "3.13")
    assert machine.run("setup")[0] == 0
    assert machine.version == "3.13"


def test_every_python_that_was_passed_over_is_named_with_its_reason(machine):
    machine.add_python("python3.11", "broken")
    machine.add_python("python3.13", "bare")
    reasons = "; python3.11 does not start; python3.13 lacks its venv package. Install one"
    assert reasons in machine.refused()


def test_the_python_variable_chooses_the_interpreter(machine):
    (machine.bin / "python3.11").rename(machine.folder / "my python")
    assert machine.run("setup", PYTHON=str(machine.folder / "my python"))[0] == 0


def test_an_environment_of_another_python_than_the_chosen_one_is_made_anew(machine):
    machine.add_python("python3.12", "3.12")
    machine.run("setup")
    assert machine.run("setup", PYTHON="python3.12")[0] == 0
    assert machine.version == "3.12"
    machine.run("setup")
    assert machine.version == "3.12"  # kept: nobody asked for another one


def test_changed_requirements_leave_the_environment_its_python(machine):
    machine.add_python("python3.12", "3.12")
    machine.run("setup", PYTHON="python3.12")
    (machine.folder / "requirements.txt").open("a").write("# changed\n")
    machine.run("setup")
    assert machine.version == "3.12"


def test_an_environment_whose_python_is_gone_is_made_anew(machine):
    machine.run("setup")
    (machine.bin / "python3.11").unlink()
    (machine.venv / "bin/python").write_text("#!/bin/bash\nexit 127\n")
    machine.add_python("python3.12", "3.12")
    assert machine.run("setup")[0] == 0
    assert machine.version == "3.12"


def test_a_full_disk_is_found_before_anything_is_installed(machine):
    machine.add("df", "#!/bin/bash\nprintf 'Filesystem 1024-blocks Used Available\\n/dev/x 9 9 2097152\\n'\n")
    assert "The environment needs 7 GB of disk" in machine.refused()
    assert machine.installs == []


@pytest.mark.parametrize(
    ("said", "cure"),
    [
        ("OSError: [Errno 28] No space left on device", "the disk is full. Free 7 GB"),
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
    assert "error: [2/6] installing torch failed" in errors
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
        == "error: unknown command tset. Use ./run.sh, ./run.sh test, ./run.sh docs or ./run.sh setup."
    )


def test_continuous_integration_runs_the_documented_test_command():
    assert "./run.sh test" in (ROOT / ".ci/run").read_text()


def pinned_lines() -> list[str]:
    return [
        line
        for name in FILES[1:3]
        for line in (ROOT / name).read_text().splitlines()
        if line and not line.startswith("#")
    ]


def test_the_tested_set_is_pinned_and_free_of_hosts_and_of_torchaudio():
    pin = re.compile(r"""[\w.-]+==[\w.]+(; python_version (<|>=) "3\.11")?""")
    assert not [line for line in pinned_lines() if not pin.fullmatch(line)]
    assert not [line for line in pinned_lines() if "torchaudio" in line]
    assert not [name for name in FILES if "://" in (ROOT / name).read_text()]


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.14"])
def test_the_pinned_set_lies_within_the_ranges_of_pyproject_toml(version):
    project = project_table()
    extras = project["optional-dependencies"]
    wanted = [Requirement(line) for line in (*project["dependencies"], *extras["test"])]
    wanted += [
        Requirement(line)
        for name in next(one.extras for one in wanted if one.name == "mmpt")
        for line in extras[name]
    ]
    pins = [Requirement(line) for line in pinned_lines()]
    pins = [pin for pin in pins if pin.marker is None or pin.marker.evaluate({"python_version": version})]
    pinned = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}
    assert len(pinned) == len(pins)
    for one in wanted:
        assert one.name == "mmpt" or one.specifier.contains(pinned[canonicalize_name(one.name)]), one


def test_a_second_run_waits_for_the_first(machine):
    first = machine.start("setup", FAKE_PIP_SLEEP="0.3")
    machine.wait_for_pip()
    shown = machine.run("setup")[1]
    assert first.wait(timeout=10) == 0
    assert shown.splitlines()[0] == "waiting for another run.sh to finish its set-up"
    assert "[1/6]" not in shown
