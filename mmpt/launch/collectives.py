"""Several processes sum 16 MB over and over: do they reach each other, and how fast?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from mmpt.launch.torchrun import Topology

MESSAGE_FLOATS = 4 << 20  # 16 MB: about the gradient buckets of training
START_SECONDS = 120
AS_RANK = ("-m", "mmpt.launch.collectives")  # what torchrun starts


class Measured(NamedTuple):
    """What the first rank saw."""

    rounds: int
    seconds: float


def sum_over_ranks(topology: Topology, backend: str, seconds: float) -> Measured | None:
    """Start the ranks of this machine and wait for them.

    Args:
        topology: processes and machines.
        backend: gloo or nccl.
        seconds: for how long they go on.

    Returns:
        What was measured; None on a machine that does not have the first rank.

    Raises:
        TimeoutError: they did not come to an end.
        RuntimeError: one failed; the message is what it said last.
    """
    with tempfile.TemporaryDirectory(prefix="mmpt_doctor_") as folder:
        answer = Path(folder) / "measured.json"
        program = ["-m", "mmpt.launch.torchrun", f"--log-dir={folder}/logs", *topology.torchrun_words()]
        rank = [*AS_RANK, backend, str(seconds), str(answer)]
        try:
            done = subprocess.run(
                [sys.executable, *program, *rank],
                capture_output=True,
                text=True,
                timeout=seconds + START_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            away = ", or another machine was not started" * (topology.nodes > 1)
            raise TimeoutError(f"did not come to an end in {seconds + START_SECONDS:.0f} s{away}") from error
        if done.returncode:
            said = done.stderr.splitlines() or ["no message"]
            errors = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
            raise RuntimeError(f"failed: {(errors or said)[-1].strip()}")
        return Measured(**json.loads(answer.read_text())) if answer.is_file() else None


def as_rank(backend: str, seconds: float, answer: Path) -> None:
    """One of the processes; the first writes what it measured.

    Raises:
        RuntimeError: a sum is wrong.
    """
    import torch
    import torch.distributed as dist

    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if backend == "nccl" else torch.device("cpu")
    if backend == "nccl":
        torch.cuda.set_device(device)
    dist.init_process_group(backend)
    world, rounds, start = dist.get_world_size(), 0, time.perf_counter()
    more = torch.ones(1, device=device)
    while more.item():
        numbers = torch.full((MESSAGE_FLOATS,), float(dist.get_rank() + 1), device=device)
        dist.all_reduce(numbers)
        if not (numbers == world * (world + 1) / 2).all():
            raise RuntimeError(
                f"the sum over {world} ranks is wrong: {numbers[0].item()}, expected "
                f"{world * (world + 1) / 2}."
            )
        rounds += 1
        more.fill_(time.perf_counter() - start < seconds)
        dist.broadcast(more, src=0)  # all ranks stop after the same round
    if dist.get_rank() == 0:
        answer.write_text(json.dumps({"rounds": rounds, "seconds": time.perf_counter() - start}))
    dist.destroy_process_group()


if __name__ == "__main__":
    as_rank(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3]))
