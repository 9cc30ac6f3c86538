"""The history of a run from its log."""

import pytest

from mmpt.config import ConfigError
from mmpt.replay import read_log
from mmpt.replay.log import Job
from mmpt.utils.text import TextError
from tests.replay.logs import logged, run, start


def job(processes):
    return Job(processes, 1, True, (f"a.b={processes}",))


def test_what_a_restart_did_again_counts_once_and_what_it_never_reached_not_at_all(tmp_path):
    lines = [start(0, 4), *(logged(u, f"a{u}") for u in range(1, 8)), start(5, 2), logged(6, "b6")]
    log = read_log(run(tmp_path, *lines, {"tag": "train", "update": 6}, '{"tag": "train_in'))
    assert log.hashes == {1: "a1", 2: "a2", 3: "a3", 4: "a4", 5: "a5", 6: "b6"}
    assert log.starts == {0: job(4), 5: job(2)}


def test_a_stretch_is_made_again_by_the_jobs_that_made_it(tmp_path):
    log = read_log(run(tmp_path, start(0, 1), start(10, 2), start(20, 4), start(30, 4)))
    assert log.segments(12, 18) == [(12, 18, job(2))]
    assert log.segments(10, 20) == [(10, 20, job(2))]
    assert log.segments(22, 35) == [(22, 35, job(4))]  # started again as it was
    assert log.segments(3, 25) == [(3, 10, job(1)), (10, 20, job(2)), (20, 25, job(4))]


def test_a_start_from_an_older_checkpoint_puts_later_starts_aside(tmp_path):
    assert read_log(run(tmp_path, start(0, 1), start(10, 2), start(5, 3))).starts == {0: job(1), 5: job(3)}


def test_folders_that_cannot_be_replayed_say_why(tmp_path):
    with pytest.raises(ConfigError, match="no run folder"):
        read_log(tmp_path)
    with pytest.raises(ConfigError, match="does not say where the run starts"):
        read_log(run(tmp_path, logged(3, "x")))
    with pytest.raises(TextError, match="metrics.jsonl, line 2: not a JSON file"):
        read_log(run(tmp_path, start(0, 1), "nonsense\n"))
