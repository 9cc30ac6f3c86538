"""train.py under the launchers of torch."""

import os

import pytest

from mmpt_cli import fairseq_train

WORLD = ["--distributed-world-size", "2"]


@pytest.mark.parametrize(
    ("environment", "words", "expected"),
    [
        ({}, ["x.yaml"], ["x.yaml"]),
        ({"WORLD_SIZE": "2"}, ["--local-rank=1", "x.yaml", "--cpu"], ["x.yaml", "--cpu", *WORLD]),
        ({"WORLD_SIZE": "2"}, ["--local_rank=1", "x.yaml", *WORLD], ["x.yaml", *WORLD]),
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "1"}, ["x.yaml"], ["x.yaml", *WORLD]),
    ],
)
def test_the_printed_launch_line_gives_fairseq_the_arguments_of_torchrun(
    monkeypatch, environment, words, expected
):
    for name in ("WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert fairseq_train.launched(words) == expected
    assert os.environ.pop("LOCAL_RANK", None) == (None if not environment else "1")


def test_a_line_without_an_architecture_is_told_who_writes_it():
    with pytest.raises(ValueError, match="needs --user-dir mmpt .* locallaunch.py FILE gives all of them"):
        fairseq_train.check(["x.yaml", "--cpu"])
    fairseq_train.check(["x.yaml", "--arch=mmarch"])
    fairseq_train.check(["--help"])
