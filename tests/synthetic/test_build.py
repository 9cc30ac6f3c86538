import filecmp
import os
import signal
import subprocess
import sys
import time

import pytest

from mmpt.synthetic.build import STAMP, build_world, is_complete
from tests.synthetic.conftest import TINY
from tests.synthetic.worlds import MINI


@pytest.fixture
def mini(tmp_path):
    out = tmp_path / "toy"
    build_world(out, MINI)
    return out


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_same_settings_give_the_same_bytes_in_another_process(root, tmp_path):
    command = [sys.executable, "-m", "mmpt_cli.make_data", "--out", str(tmp_path / "again"), "--size", "tiny"]
    subprocess.run(command, check=True, capture_output=True)
    names = files(root)
    assert names == files(tmp_path / "again")
    assert filecmp.cmpfiles(root, tmp_path / "again", names, shallow=False)[1:] == ([], [])


def test_a_finished_folder_is_reused(mini):
    before = (mini / STAMP).stat().st_mtime_ns
    assert build_world(mini, MINI) is False
    assert (mini / STAMP).stat().st_mtime_ns == before


def test_a_file_that_readers_add_does_no_harm(mini):
    (mini / "how2" / "feat" / "train_meta.pkl.index").write_bytes(b"cache")
    assert build_world(mini, MINI) is False


@pytest.mark.parametrize("harm", ["missing", "truncated", "stamp"])
def test_a_damaged_folder_is_made_again(mini, harm):
    victim = mini / "how2" / "feat" / "train_0_data.npy"
    whole = victim.read_bytes()
    if harm == "missing":
        victim.unlink()
    elif harm == "truncated":
        victim.write_bytes(whole[:-10])
    else:
        (mini / STAMP).write_text("{}")
    assert not is_complete(mini, MINI) and build_world(mini, MINI) is True
    assert victim.read_bytes() == whole


def test_other_settings_replace_the_folder(mini):
    assert build_world(mini, MINI.with_knobs({"p_silent": 0.9})) is True
    assert not is_complete(mini, MINI)


def test_a_folder_behind_a_link_is_made_again_where_it_lies(mini, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(mini)
    assert build_world(link, MINI.with_knobs({"p_silent": 0.9})) is True
    assert link.is_symlink() and not is_complete(mini, MINI)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="no synthetic world"):
        build_world(tmp_path / "mine", MINI)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_a_failure_leaves_nothing_behind(tmp_path):
    def fail(items, label):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        build_world(tmp_path / "toy", MINI, track=fail)
    assert files(tmp_path) == {".toy.lock"}


def test_a_killed_run_leaves_no_folder_and_the_next_one_succeeds(tmp_path):
    out = tmp_path / "toy"
    slow = (
        "import time; from mmpt.synthetic.build import build_world; from tests.synthetic.worlds import MINI\n"
    )
    slow += f"build_world({str(out)!r}, MINI, track=lambda items, label: [time.sleep(60)])"
    process = subprocess.Popen([sys.executable, "-c", slow])
    deadline = time.monotonic() + 30
    while not (tmp_path / ".toy.partial").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists()
    assert build_world(out, MINI) is True and not (tmp_path / ".toy.partial").exists()


def test_two_processes_make_one_world(tmp_path):
    command = "from mmpt.synthetic.build import build_world; from tests.synthetic.worlds import MINI\n"
    command += f"print(build_world({str(tmp_path / 'toy')!r}, MINI))"
    processes = [
        subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    assert sorted(process.communicate()[0].strip() for process in processes) == ["False", "True"]
    assert is_complete(tmp_path / "toy", MINI) and not is_complete(tmp_path / "toy", TINY)
