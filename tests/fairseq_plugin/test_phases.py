"""What ranks say of themselves."""

from __future__ import annotations

from types import SimpleNamespace

from fairseq.tasks import LegacyFairseqTask

from mmpt.fairseq_plugin import phases, signals
from mmpt.fairseq_plugin.task import FairseqMMTask
from mmpt.launch.heartbeat import COLLECTIVE, DATA, HEART


def test_the_slowest_rank_is_found_from_the_sum_of_what_all_say():
    ranks = phases.Stragglers(), phases.Stragglers()
    for rank in ranks:
        rank.slots(0, 2)
    HEART.spent |= {DATA: 0.25, COLLECTIVE: 100.0}
    slow = ranks[1].slots(1, 2)
    assert slow[:3] == [0.0, 0.0, 0.0] and slow[3] == 0.25
    ranks[0].hear([0.1, 0.3, 1.5, 0.25, 0.35, 2.5])
    assert ranks[0].peak_gib == 2.5
    rounded = {name: round(value, 3) for name, value in ranks[0].last.items()}
    assert rounded == {
        "slowest_rank": 1,
        "slowest_data_s": 0.25,
        "data_s": 0.175,
        "slowest_step_s": 0.35,
        "step_s": 0.325,
    }


def test_a_collective_is_a_phase_and_returns_what_it_returned():
    seen = []
    gather = phases._marked(lambda x: seen.append(HEART.phase) or x + 1, COLLECTIVE)
    assert gather(1) == 2 and seen == [COLLECTIVE] and HEART.phase != COLLECTIVE


def test_a_data_loading_process_that_died_is_one_sentence_with_its_likely_reason():
    killed = RuntimeError("DataLoader worker (pid 17) is killed by signal: Killed. ")
    assert str(signals._in_words(killed)).startswith(
        "a data loading process died (DataLoader worker (pid 17) is killed by signal: Killed): out of memory?"
    )
    cut = RuntimeError("DataLoader worker (pid 17) is killed by signal: Bus error. It is possible that")
    assert "became shorter meanwhile" in str(signals._in_words(cut))
    other = RuntimeError("DataLoader worker (pid(s) 5, 6) exited unexpectedly")
    assert "a data loading process died" in str(signals._in_words(other))
    unrelated = ValueError("no such shard")
    assert signals._in_words(unrelated) is unrelated


def test_processes_that_load_data_end_with_the_iterator_of_their_epoch(monkeypatch):
    iterator = SimpleNamespace(persistent_workers=True)
    monkeypatch.setattr(LegacyFairseqTask, "get_batch_iterator", lambda *args, **kwargs: iterator)
    task = object.__new__(FairseqMMTask)
    task.datasets, task.iterators = {"train": "another"}, {}
    assert task.get_batch_iterator("data") is iterator and not iterator.persistent_workers


def test_a_connection_to_a_data_loading_process_that_broke_off_is_its_death(monkeypatch):
    reset = ConnectionResetError(104, "Connection reset by peer")
    assert signals._in_words(reset) is reset
    names = "torch/utils/data/dataloader.py", "multiprocessing/connection.py"
    frames = [SimpleNamespace(filename=name) for name in names]
    monkeypatch.setattr(signals.traceback, "extract_tb", lambda trace: frames)
    assert "a data loading process died ([Errno 104] Connection reset" in str(signals._in_words(reset))
