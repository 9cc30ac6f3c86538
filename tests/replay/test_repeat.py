"""What a replay makes of a training that fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.jobs import replayed
from mmpt.launch.local import Running
from mmpt.replay import read_log, repeat
from tests.replay.logs import logged, run, start

YAML = "dataset: {train_path: a}\nmodel: {model_cls: MMFusionSeparate}\nloss: {loss_cls: MMContraLoss}\n"


@pytest.fixture(params=[False, True], ids=["before the update", "in the update"])
def failed(request, monkeypatch):
    """Every training fails; whether its record of the update that is asked for was begun."""

    def begin(self, command, devices, output):
        output.write("out of memory\n")
        if request.param:
            folder = Path(command.argv[command.argv.index("--replay-record") + 1])
            (folder / "rank0.json").write_text('[{"rank": 0, "batch": 0, "items": []}]')

    monkeypatch.setattr(Running, "start", begin)
    monkeypatch.setattr(Running, "wait", lambda self: 1)
    return request.param


@pytest.mark.parametrize("update", [5, 12])
def test_a_failure_of_the_update_itself_is_found_and_one_before_it_is_an_error(update, failed, tmp_path):
    jobs = [start(0, 1) | {"changes": {}}, start(10, 2) | {"changes": {}}]
    log = read_log(run(tmp_path, *jobs, logged(12, "a")))
    (tmp_path / "config.yaml").write_text(YAML)
    if failed and update == 5:
        made = repeat(log, update)
        assert (made.error, made.found, made.reproduced) == ("out of memory", None, None)
    else:  # update 12 is of the second job, and the first fails already
        with pytest.raises(RuntimeError, match=r"out of memory\n.* failed before update (5|10) "):
            repeat(log, update)


@pytest.mark.slow
def test_hashes_of_runs_that_were_killed_are_those_of_their_updates_made_again():
    rows = replayed()
    assert [row["processes"] for row in rows] == [1, 2] and all(row["starts"] == 3 for row in rows)
    assert sum(row["hashes"] for row in rows) == sum(row["equal"] for row in rows) == 100
    assert all(made for row in rows for made in row["from a checkpoint"])
