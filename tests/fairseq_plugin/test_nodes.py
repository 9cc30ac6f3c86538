"""Two "nodes" on one machine: two agents that meet on the loopback train the model that one node with two processes trains."""

from __future__ import annotations

import os
import socket
import subprocess

import pytest

from tests.conftest import ROOT
from tests.fairseq_plugin.test_training import assert_same_weights, command, launch, weights


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_two_nodes_end_with_the_weights_of_one_node_with_the_same_ranks(toy_world, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    launch(command(toy_world, one, "loss.global_negatives=true", jobtype="local_small"))
    words = [
        *command(toy_world, two, "loss.global_negatives=true", jobtype="local_small"),
        *("--nnodes", "2", "--nproc-per-node", "1", "--rdzv-endpoint", f"127.0.0.1:{free_port()}"),
    ]
    nodes = [
        subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        for _ in range(2)
    ]
    outputs = [node.communicate(timeout=300)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], "\n".join(outputs)[-3000:]
    assert all("world size 2: 2 nodes x 1 process on the CPU" in output for output in outputs)
    assert sum("training on 2 devices" in output for output in outputs) == 1
    assert_same_weights(weights(two), weights(one))
