"""Which of several processes this one is, as whoever started them says: torchrun, SLURM or MPI."""

from __future__ import annotations

import os
from collections.abc import Mapping
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
        ValueError: the tasks of a SLURM array are listed one by one, so that none knows its position.
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
    if (last - first) // step + 1 != count or (number - first) % step:
        raise ValueError(
            f"the SLURM array has {count} tasks between {first} and {last}, listed one by one, and SLURM "
            f"does not tell task {number} its position. Use a range such as --array=0-{count - 1}, or give "
            "--rank and --world-size."
        )
    return (number - first) // step, count
