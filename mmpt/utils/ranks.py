"""Which of several processes this one is, as whoever started them says: torchrun, SLURM or MPI."""

from __future__ import annotations

import functools
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from typing import NamedTuple

MPI = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
)


class Place(NamedTuple):
    """Number of this process, number of processes, and who says so."""

    rank: int = 0
    world_size: int = 1
    source: str = "one process"


def place(environment: Mapping[str, str] = os.environ) -> Place:
    """The place of this process.

    SLURM's arrays and `srun` multiply: each task of an array may start several processes. In an array the
    position counts, not the number of the task.

    Raises:
        ValueError: the tasks of a SLURM array are listed one by one, and SLURM does not tell which they are.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return Place(int(environment["RANK"]), int(environment["WORLD_SIZE"]), "torchrun (RANK, WORLD_SIZE)")
    rank, size, sources = 0, 1, []
    if "SLURM_ARRAY_TASK_ID" in environment:
        position, size = _in_array(environment)
        rank, sources = position, ["a SLURM array"]
    tasks = environment.get("SLURM_STEP_NUM_TASKS", environment.get("SLURM_NTASKS"))
    if "SLURM_PROCID" in environment and tasks is not None and int(tasks) > 1:
        rank, size = rank * int(tasks) + int(environment["SLURM_PROCID"]), size * int(tasks)
        sources.append("srun (SLURM_PROCID)")
    if sources:
        return Place(rank, size, " and ".join(sources))
    for own, all_ in MPI:
        if own in environment and all_ in environment:
            return Place(int(environment[own]), int(environment[all_]), f"MPI ({own})")
    return Place()


def _in_array(environment: Mapping[str, str]) -> tuple[int, int]:
    number = int(environment["SLURM_ARRAY_TASK_ID"])
    first = int(environment.get("SLURM_ARRAY_TASK_MIN", number))
    last = int(environment.get("SLURM_ARRAY_TASK_MAX", first))
    step = int(environment.get("SLURM_ARRAY_TASK_STEP", 1)) or 1
    count = int(environment.get("SLURM_ARRAY_TASK_COUNT", (last - first) // step + 1))
    if "SLURM_ARRAY_TASK_MAX" not in environment:
        last = first + (count - 1) * step
    if (last - first) // step + 1 == count and not (number - first) % step:
        return (number - first) // step, count
    tasks = _listed(environment["SLURM_ARRAY_JOB_ID"]) if "SLURM_ARRAY_JOB_ID" in environment else []
    if len(tasks) != count or number not in tasks:
        raise ValueError(
            f"the SLURM array has {count} tasks between {first} and {last}, listed one by one, and neither "
            f"sacct nor scontrol tells which they are, so that task {number} does not know its position. Use "
            f"a range such as --array=0-{count - 1}, or give --rank and --world-size."
        )
    return tasks.index(number), count


@functools.cache
def _listed(job: str) -> list[int]:
    """Numbers of all tasks of an array, as accounting or the scheduler knows them; the longer list, since
    the scheduler forgets what ended a while ago."""
    asked = (
        (["sacct", "-X", "-n", "-P", "-j", job, "-o", "JobID"], rf"^{job}_\[?([\d,:-]+)"),
        (["scontrol", "show", "job", "--oneliner", job], r"\bArrayTaskId=([\d,:-]+)"),
    )
    found: list[list[int]] = [[]]
    for command, pattern in asked:
        try:
            told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
        except (OSError, subprocess.TimeoutExpired):  # not installed on this machine, or not answering
            continue
        numbers = {n for text in re.findall(pattern, told, re.MULTILINE) for n in _numbers(text)}
        found.append(sorted(numbers))
    return max(found, key=len)


def _numbers(text: str) -> Iterator[int]:
    """Of `1,3,8-14:2`."""
    for part in filter(None, text.split(",")):
        span, _, step = part.partition(":")
        first, _, last = span.partition("-")
        yield from range(int(first), int(last or first) + 1, int(step or 1))
