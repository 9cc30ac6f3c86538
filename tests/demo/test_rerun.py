"""Cells of a record computed anew: what is compared, and what has to be there."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest

from mmpt.demo import rerun as module
from mmpt.demo.main_job import MainJob
from mmpt.evaluators.records import cell, write_record
from mmpt_cli.verify_results import main

RANKS = np.array([1.0, 1.0, 2.0, 9.0])


@pytest.fixture
def record(tmp_path):
    """Of one model whose weights are three bytes."""
    weights = tmp_path / "run" / "checkpoint_last.pt"
    weights.parent.mkdir()
    weights.write_bytes(b"abc")
    config = {"fairseq": {"checkpoint": {"save_dir": str(weights.parent)}}}
    about = {
        "command": "mmpt demo",
        "settings": dataclasses.asdict(MainJob()),
        "weights": {"small": {"sha256": hashlib.sha256(b"abc").hexdigest()}},
    }
    table = [["model", "R@1"], ["small", cell("small", "vtt", "ranks", "R1")]]
    numbers = {"small": {"vtt": {"ranks": RANKS}}}
    return write_record(tmp_path / "record", {"Toy": table}, numbers, {"small": config}, about)


def test_a_cell_that_the_weights_give_again_agrees(record, monkeypatch, capsys):
    monkeypatch.setattr(module, "_per_query", lambda *_: {"ranks": RANKS})
    assert main([str(record), "--rerun", "1"]) == 0
    said = "small, vtt, ranks, R1: 50.0 in the record, 50.0 now; 0 of 4 queries differ"
    assert said in capsys.readouterr().out


def test_a_cell_that_the_weights_do_not_give_is_named(record, monkeypatch):
    monkeypatch.setattr(module, "_per_query", lambda *_: {"ranks": RANKS + 1})
    ((_, problem),) = module.rerun(record, 1)
    assert "50.0 in the record, 0.0 now; 4 of 4 queries differ" in problem


def test_of_a_record_without_single_models_the_command_is_told(tmp_path, capsys):
    about = {"command": "python benchmarks/toy.py --record toy"}
    folder = write_record(tmp_path / "toy", {"Toy": [["ms"], ["1"]]}, {"measured": [1]}, {}, about)
    assert main([str(folder), "--rerun", "1"]) == 0
    said = "no single models to evaluate; make it anew: python benchmarks/toy.py --record toy"
    assert said in capsys.readouterr().out


def test_other_weights_are_refused(record, tmp_path):
    (tmp_path / "run" / "checkpoint_last.pt").write_bytes(b"abd")
    with pytest.raises(ValueError, match="checkpoint_last.pt: its sha256 is .*is ba78"):
        list(module.rerun(record, 1))


def test_absent_weights_are_named_with_the_command_that_makes_them(record, tmp_path):
    (tmp_path / "run" / "checkpoint_last.pt").unlink()
    with pytest.raises(FileNotFoundError, match="weights of 'small' are not here. Make them: mmpt demo"):
        list(module.rerun(record, 1))
