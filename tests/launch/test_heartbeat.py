"""A job that stands still is noticed, and the rank that stopped is named."""

from __future__ import annotations

import time
from dataclasses import replace

from mmpt.launch.heartbeat import COLLECTIVE, DATA, ENDED, FORWARD, Beat, Heart, Watch, judge

WELL = Beat(0, "here", 1, FORWARD, update=7, standing_s=1, limit_s=600, interval_s=5)


def waiting(rank, **changes):
    return replace(WELL, rank=rank, phase=COLLECTIVE, **({"standing_s": 610} | changes))


def test_nobody_is_late():
    assert judge([WELL, replace(WELL, rank=1, standing_s=599)]) is None
    assert judge([replace(WELL, phase=ENDED, silent_s=1e6), WELL]) is None
    assert judge([]) is None


def test_a_silent_rank_is_named_before_those_that_wait_for_it():
    frozen = replace(WELL, rank=3, host="there", silent_s=605, phase=DATA)
    said = judge([waiting(0), waiting(1), frozen])
    assert said.startswith("rank 3 on there (process 1) stands still since 20")
    assert "in phase data, after update 7: no sign of life from there; is that machine" in said
    assert "Ended after 600 s without progress" in said


def test_a_rank_that_hangs_outside_a_collective_is_named_before_those_that_wait_for_it():
    assert judge([waiting(0), replace(WELL, rank=1, phase=DATA, standing_s=640)]).startswith("rank 1 on here")


def test_ranks_that_all_wait_for_each_other_point_to_the_network():
    said = judge([waiting(0), waiting(1, host="there")])
    assert said.startswith("all 2 ranks stand still since") and "is the network down (here, there)?" in said


def test_a_rank_that_froze_before_it_said_that_training_had_begun_is_not_given_the_time_of_a_start():
    frozen = replace(WELL, rank=1, phase="start-up", update=0, limit_s=1800, silent_s=605)
    assert judge([waiting(0), frozen]).startswith("rank 1 on here")


def test_ranks_wait_as_long_as_the_slowest_is_allowed_to_take():
    starting = replace(WELL, rank=1, phase="composing batches", standing_s=700, limit_s=1800)
    assert judge([waiting(0, standing_s=650), starting]) is None


def test_a_rank_whose_words_do_not_arrive_is_no_reason_to_end_a_job_that_gets_on():
    far = Beat(1, silent_s=1e6)
    assert judge([WELL, far]) is None
    assert judge([WELL, replace(WELL, rank=1, silent_s=1e6)]) is None
    starting = replace(WELL, phase="start-up", standing_s=1801, limit_s=1800)
    assert judge([starting, far]).startswith("rank 1 has not said a word")


def test_a_limit_of_zero_is_none():
    assert judge([waiting(0, limit_s=0)]) is None


def test_what_a_rank_says_reaches_the_listener_and_a_hang_ends_it(tmp_path):
    heart, found = Heart(), []
    heart.timeout_s = 0.4
    heart.train()
    heart.start(0, str(tmp_path), lambda beat: None)
    with Watch(tmp_path, 1, found.append), heart.during(DATA):
        deadline = time.monotonic() + 20
        while not found and time.monotonic() < deadline:
            time.sleep(0.02)
    heart.stop()
    assert len(found) == 1 and "in phase data, after update 0" in found[0]


def test_a_rank_that_nobody_listens_to_watches_itself():
    heart, found = Heart(), []
    heart.timeout_s = 0.2
    heart.train()
    heart.start(5, None, found.append)
    deadline = time.monotonic() + 20
    while not found and time.monotonic() < deadline:
        time.sleep(0.02)
    heart.stop()
    assert found[0].rank == 5


def test_beats_of_an_earlier_start_do_not_count(tmp_path):
    heart = Heart()
    heart.start(0, str(tmp_path), lambda beat: None)
    heart.stop()
    watch = Watch(tmp_path, 1, print)
    watch.hear(1800.0)
    assert "rank 0 has not said a word in 1800 s" in judge(watch.beats)
    (tmp_path / "rank0").unlink()
    watch.hear(5.0)
    assert "rank 0 has not said a word in 1805 s" in judge(watch.beats)


def test_phases_within_phases_go_on_where_they_were_and_time_is_counted_once():
    heart = Heart()
    with heart.during(FORWARD):
        with heart.during(COLLECTIVE):
            time.sleep(0.02)
            with heart.during(COLLECTIVE):
                time.sleep(0.02)
        assert heart.phase == FORWARD
    assert 0.04 <= heart.take_spent(COLLECTIVE) < 0.08
    assert heart.take_spent(COLLECTIVE) == 0
