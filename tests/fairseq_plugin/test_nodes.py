"""Two processes on one node, on two "nodes" that meet on the loopback, and stopped in between: the same
weights."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from tests.conftest import ROOT
from tests.fairseq_plugin.jobs import ended, start
from tests.fairseq_plugin.runs import assert_same_weights, command, launch, weights
from tests.ports import free_port


@pytest.fixture(scope="module")
def one_node(toy_world, tmp_path_factory):
    """The run folder of two processes that nothing disturbs."""
    run = tmp_path_factory.mktemp("one") / "run"
    launch(two_processes(toy_world, run))
    return run


def two_processes(world, run):
    return command(world, run, "loss.global_negatives=true", jobtype="local_small")


@pytest.mark.slow
def test_two_nodes_end_with_the_weights_of_one_node_with_the_same_ranks(one_node, toy_world, tmp_path):
    run = tmp_path / "two"
    words = [
        *two_processes(toy_world, run),
        *("--nnodes", "2", "--nproc-per-node", "1", "--rdzv-endpoint", f"127.0.0.1:{free_port()}"),
    ]
    options = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
        "env": {**os.environ, "OMP_NUM_THREADS": "1"},
    }
    nodes = [subprocess.Popen(words, cwd=ROOT, **options) for _ in range(2)]
    outputs = [node.communicate(timeout=300)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], "\n".join(outputs)[-3000:]
    assert all("world size 2: 2 nodes x 1 process on the CPU" in output for output in outputs)
    assert sum("training on 2 devices" in output for output in outputs) == 1
    assert_same_weights(weights(run), weights(one_node))


@pytest.mark.slow
def test_two_processes_stopped_by_a_signal_to_the_launcher_resume_bit_identical(
    one_node, toy_world, tmp_path
):
    run = tmp_path / "stopped"
    words = two_processes(toy_world, run)
    job = start(words, run)
    job.send_signal(signal.SIGUSR1)
    assert "stopped as asked, checkpoint saved (exit code 85)" in ended(job)
    launch(words)
    assert_same_weights(weights(run), weights(one_node))
