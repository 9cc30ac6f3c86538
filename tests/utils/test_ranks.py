"""Which of several processes this one is."""

from __future__ import annotations

import pytest

from mmpt.utils import ranks
from mmpt.utils.ranks import place


def array(number, first, last, count, step=1):
    names = ("ID", "MIN", "MAX", "COUNT", "STEP")
    values = (number, first, last, count, step)
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in zip(names, values, strict=True)}


@pytest.mark.parametrize(
    ("environment", "expected", "source"),
    [
        ({}, (0, 1), "one process"),
        ({"RANK": "1", "WORLD_SIZE": "3"}, (1, 3), "torchrun"),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "4"}, (2, 4), "srun"),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, (0, 1), "one process"),
        (array(7, 5, 8, 4), (2, 4), "a SLURM array"),
        (array(14, 0, 14, 8, 2), (7, 8), "a SLURM array"),
        (array(1, 0, 2, 3) | {"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, (3, 6), "a SLURM array and srun"),
        ({"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4"}, (3, 4), "MPI"),
        ({"PMI_RANK": "0", "PMI_SIZE": "2"}, (0, 2), "MPI"),
        (array(7, 5, 8, 4) | {"RANK": "1", "WORLD_SIZE": "3"}, (1, 3), "torchrun"),
    ],
)
def test_whoever_started_the_processes_says_which_this_is(environment, expected, source):
    found = place(environment)
    assert (found.rank, found.world_size) == expected and found.source.startswith(source)


@pytest.fixture
def scheduler(tmp_path, monkeypatch):
    """Puts commands on the path that print a text."""

    def install(**texts):
        for name, text in texts.items():
            (tmp_path / name).write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
            (tmp_path / name).chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    ranks._listed.cache_clear()
    yield install
    ranks._listed.cache_clear()


LISTED = array(3, 1, 7, 3) | {"SLURM_ARRAY_JOB_ID": "90"}


@pytest.mark.parametrize(
    "texts",
    [
        {"sacct": "90_1\n90_[3,7%2]"},
        {"scontrol": "JobId=91 ArrayJobId=90 ArrayTaskId=1\nJobId=90 ArrayJobId=90 ArrayTaskId=3-7:4"},
        {"sacct": "", "scontrol": "JobId=90 ArrayJobId=90 ArrayTaskId=1,3,7 A=b"},
    ],
)
def test_an_array_listed_one_by_one_asks_slurm_for_its_positions(scheduler, texts):
    scheduler(**texts)
    assert place(LISTED)[:2] == (1, 3)


@pytest.mark.parametrize("texts", [{}, {"scontrol": "JobId=91 ArrayJobId=90 ArrayTaskId=3,7 A=b"}])
def test_an_array_whose_list_slurm_does_not_tell_is_refused(scheduler, texts):
    scheduler(**texts)
    with pytest.raises(ValueError, match=r"3 tasks between 1 and 7.* --array=0-2, or give --rank"):
        place(LISTED)


def test_an_array_of_steps_counts_positions_and_not_numbers():
    assert sorted(place(array(number, 0, 14, 8, 2)).rank for number in range(0, 15, 2)) == list(range(8))
