"""torchrun whose failures can be read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from mmpt.config import ConfigError
from mmpt.launch.torchrun import Topology, first_failure, last_lines, report
from tests.conftest import ROOT
from tests.ports import free_port

PROGRAM = str(ROOT / "mmpt/launch/torchrun.py")


def start(tmp_path, code, *words):
    script = tmp_path / "script.py"
    script.write_text("import os, signal, sys, time\nrank = int(os.environ['RANK'])\n" + code)
    spread = words or ("--nproc_per_node=2", "--standalone")
    command = [sys.executable, PROGRAM, f"--log-dir={tmp_path / 'logs'}", *spread, str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def finish(process):
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize(
    ("topology", "words"),
    [
        (Topology(per_node=2), "--nproc_per_node=2 --standalone"),
        (
            Topology(nodes=2, per_node=8, endpoint="a:1", run_id="7"),
            "--nnodes=2 --nproc_per_node=8 --rdzv-endpoint=a:1 --rdzv-id=7 --rdzv-backend=c10d",
        ),
        (
            Topology(nodes=2, per_node=1, endpoint="a:1", node_rank=0),
            "--nnodes=2 --nproc_per_node=1 --rdzv-endpoint=a:1 --rdzv-id=mmpt --rdzv-backend=static "
            "--node-rank=0",
        ),
    ],
)
def test_a_topology_becomes_arguments_of_torchrun(topology, words):
    assert " ".join(topology.torchrun_words()) == words


@pytest.mark.parametrize(
    "wrong",
    [{"nodes": 2}, {"endpoint": "a:1"}, {"node_rank": 0}, {"nodes": 2, "endpoint": "a:1", "node_rank": -1}],
)
def test_a_topology_that_cannot_start_is_refused(wrong):
    with pytest.raises(ConfigError, match="--(nnodes|rdzv-endpoint|node-rank)"):
        Topology(**wrong)


def test_one_error_is_shown_and_its_exit_code_returned(tmp_path):
    said = str(tmp_path / "said")
    program = (
        f"import os\nsaid = {said!r}\n"
        "if rank == 0:\n    print('hello from', rank, flush=True); open(said, 'w').close()\n"
        "while not os.path.exists(said):\n    time.sleep(0.01)\n"
        "if rank == 1:\n    print('the real trouble', file=sys.stderr); sys.exit(3)\n"
    )
    code, out, err = finish(start(tmp_path, program + "time.sleep(60)"))
    assert code == 3
    assert out == "[rank 0] hello from 0\n"
    assert "failed first: exit code 3: the real trouble\n" in err
    assert err.count("error:") == 1
    assert f"output of all ranks: {tmp_path}/logs/" in err
    assert "Traceback" not in err


def test_a_killed_rank_is_named_with_its_signal(tmp_path):
    code, _, err = finish(start(tmp_path, "if rank == 1: os.kill(os.getpid(), 9)\ntime.sleep(60)"))
    assert code == 137
    assert "rank 1 of" in err and "killed by SIGKILL (out of memory?" in err
    assert err.count("error:") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signals_reach_the_ranks_which_end_in_their_own_time(tmp_path, number):
    code = f"""
asked = []
signal.signal({int(number)}, lambda *_: asked.append(1))
open(os.path.dirname(__file__) + f'/ready{{rank}}', 'w').close()
while not asked: time.sleep(0.01)
time.sleep(0.5)
open(os.path.dirname(__file__) + f'/saved{{rank}}', 'w').close()
sys.exit(85)
"""
    process = start(tmp_path, code)
    deadline = time.monotonic() + 60
    while not all((tmp_path / f"ready{rank}").exists() for rank in (0, 1)) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    code, _, err = finish(process)
    assert code == 85
    assert "error" not in err
    assert (tmp_path / "saved0").exists()


def test_two_machines_with_numbers_give_ranks_in_that_order(tmp_path):
    code = (
        "open(os.path.dirname(__file__) + "
        "f'/node{os.environ[\"GROUP_RANK\"]}rank{rank}of{os.environ[\"WORLD_SIZE\"]}', 'w').close()"
    )
    endpoint = f"127.0.0.1:{free_port()}"
    nodes = [
        start(
            tmp_path,
            code,
            *Topology(nodes=2, per_node=1, endpoint=endpoint, node_rank=number).torchrun_words(),
        )
        for number in (1, 0)
    ]
    assert [finish(node)[0] for node in nodes] == [0, 0]
    assert sorted(path.name for path in tmp_path.glob("node*")) == ["node0rank0of2", "node1rank1of2"]


def failure(error_file, timestamp):
    return SimpleNamespace(error_file=str(error_file), timestamp=timestamp)


def test_the_rank_whose_error_was_written_first_failed_first(tmp_path):
    for name, moment in (("late", 1000.9), ("early", 1000.2)):
        (tmp_path / name).write_text("{}")
        os.utime(tmp_path / name, (moment, moment))
    assert first_failure({0: failure(tmp_path / "late", 1000), 1: failure(tmp_path / "early", 1000)}) == 1


def test_a_rank_killed_without_a_word_comes_before_those_that_missed_it_but_not_before_a_real_error(tmp_path):
    (tmp_path / "missed").write_text("{}")
    os.utime(tmp_path / "missed", (1000.6, 1000.6))
    assert first_failure({0: failure(tmp_path / "missed", 1000), 1: failure("<N/A>", 1000)}) == 1
    assert first_failure({0: failure(tmp_path / "missed", 1000), 1: failure("<N/A>", 1031)}) == 0


def test_what_a_rank_said_last_is_its_stderr_or_else_its_stdout(tmp_path):
    folder = tmp_path / "x" / "attempt_0" / "1"
    folder.mkdir(parents=True)
    (folder / "stdout.log").write_text("out\n")
    assert last_lines(tmp_path, 1) == ["out"]
    (folder / "stderr.log").write_text("1%\r2%\nlast\n\n")
    assert last_lines(tmp_path, 1) == ["2%", "last"]
    assert last_lines(tmp_path, 0) == []


def test_a_rank_that_raised_and_was_then_ended_as_another_had_left_counts_as_its_error(tmp_path, caplog):
    (tmp_path / "error.json").write_text('{"message": {"message": "ValueError: no data", "extraInfo": {}}}')
    ended = SimpleNamespace(
        error_file=str(tmp_path / "error.json"), timestamp=1, exitcode=-signal.SIGTERM, local_rank=0
    )
    folder = tmp_path / "x" / "attempt_0" / "0"
    folder.mkdir(parents=True)
    (folder / "stderr.log").write_text("loading\n[rank0]: error: no data\n")
    assert report({0: ended}, tmp_path) == 1
    shown = "\n".join(caplog.messages).splitlines()
    assert shown[0].endswith("failed first: exit code 1: ValueError: no data")
    assert shown[1:3] == ["the end of its output before:", "    loading"]
