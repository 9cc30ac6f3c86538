"""Checkpoint files: what they say, other formats, means."""

from __future__ import annotations

import json
import pickle
from argparse import Namespace
from collections import OrderedDict

import pytest
import torch

from mmpt.checkpoints.average import average, newest
from mmpt.checkpoints.convert import save
from mmpt.checkpoints.describe import describe
from mmpt.checkpoints.weights import read_state_dict
from mmpt_cli.checkpoint import main

CONFIG = {
    "task": "VideoRetriTask",
    "model": {"model_cls": "MMFusionSeparate"},
    "loss": {"loss_cls": "MMContraLoss", "beta": 0.3},
    "dataset": {"train_path": "a.lst", "bert_name": "bert"},
}


def write(folder, name="checkpoint_1_10.pt", value=1.0, updates=10, config=None):
    """A file as fairseq writes it."""
    weights = torch.full((2, 3), value)
    loss = {"val": 2.0, "sum": torch.tensor(6.0), "count": 4, "round": 4}
    meters = [(10, "loss", "AverageMeter", loss), (1, "wps", "TimeMeter", {"n": 3})]
    state = {
        "args": None,
        "cfg": {"task": Namespace(taskconfig="projects/x.yaml")},
        "model": {
            "mmmodel.a.b.weight": weights,
            "mmmodel.a.tied.weight": weights,
            "mmmodel.c.count": torch.tensor(updates),
        },
        "optimizer_history": [{"optimizer_name": "FairseqAdam", "num_updates": updates}],
        "extra_state": {
            "metrics": OrderedDict(train=meters),
            "previous_training_time": 7200.0,
            "train_iterator": {"epoch": 3},
            "best": 1.25,
            **({"config": config} if config else {}),
        },
    }
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / name)
    return folder / name


EXPECTED = {
    "tensors": 3,
    "parameters": 13,
    "project": "projects/x.yaml",
    "task": "VideoRetriTask",
    "model": "MMFusionSeparate",
    "loss": {"loss_cls": "MMContraLoss", "beta": 0.3},
    "data": {"train_path": "a.lst", "bert_name": "bert"},
    "updates": 10,
    "epoch": 3,
    "training_hours": 2.0,
    "optimizer": "FairseqAdam",
    "metrics": {"train_loss": 1.5, "best": 1.25},
}


def test_a_file_says_what_it_was_trained_with_for_how_long_and_how_well(tmp_path):
    assert describe(write(tmp_path, config=CONFIG)) == EXPECTED


def test_settings_that_are_not_in_the_file_are_taken_from_the_run_folder(tmp_path):
    path = write(tmp_path)
    assert "loss" not in describe(path)
    (tmp_path / "config.yaml").write_text(json.dumps(CONFIG))
    assert describe(path) == EXPECTED


def test_weights_without_anything_else_are_counted(tmp_path):
    torch.save({"a": torch.zeros(3)}, tmp_path / "plain.pt")
    assert describe(tmp_path / "plain.pt") == {"tensors": 1, "parameters": 3}


def test_weights_and_description_survive_safetensors_and_back(tmp_path):
    source = write(tmp_path, config=CONFIG)
    main(["convert", str(source), str(tmp_path / "x.safetensors")])
    main(["convert", str(tmp_path / "x.safetensors"), str(tmp_path / "y.pt")])
    for path in (tmp_path / "x.safetensors", tmp_path / "y.pt"):
        assert describe(path) == EXPECTED
        state = read_state_dict(path)
        assert state.keys() == {"a.b.weight", "a.tied.weight", "c.count"}
        assert all(torch.equal(state[name], tensor) for name, tensor in read_state_dict(source).items())


def test_fairseq_starts_from_a_converted_file(tmp_path):
    from fairseq import checkpoint_utils

    import mmpt.fairseq_plugin  # noqa: F401

    main(["convert", str(write(tmp_path, config=CONFIG)), str(tmp_path / "y.pt")])
    state = checkpoint_utils.load_checkpoint_to_cpu(str(tmp_path / "y.pt"))
    assert state["optimizer_history"][-1]["num_updates"] == 10
    assert state["extra_state"]["train_iterator"] == {"epoch": 3, "iterations_in_epoch": 0}
    assert state["last_optimizer_state"] is None
    assert "mmmodel.a.b.weight" in state["model"]


def test_the_mean_is_of_the_longest_trained_checkpoints_and_says_so(tmp_path):
    run = tmp_path / "run"
    write(run, "checkpoint9.pt", value=100.0, updates=5)
    write(run, "checkpoint_1_30.pt", value=4.0, updates=30)
    write(run, "checkpoint_1_20.pt", value=1.0, updates=20)
    write(run, "checkpoint_last.pt", value=50.0, updates=40)
    main(["average", str(run), "--last", "2", "--out", str(run / "mean.safetensors")])
    state = read_state_dict(run / "mean.safetensors")
    assert torch.equal(state["a.b.weight"], torch.full((2, 3), 2.5))
    assert state["c.count"] == 30
    assert describe(run / "mean.safetensors")["averaged_from"] == ["checkpoint_1_20.pt", "checkpoint_1_30.pt"]


def test_one_number_of_updates_counts_once(tmp_path):
    write(tmp_path, "checkpoint1.pt", updates=10)
    write(tmp_path, "checkpoint_1_10.pt", updates=10)
    with pytest.raises(ValueError, match="1 numbered checkpoints .*, expected 2. Keep more with"):
        newest(tmp_path, 2)


def test_checkpoints_of_different_models_have_no_mean(tmp_path):
    torch.save({"a": torch.zeros(3)}, tmp_path / "a.pt")
    torch.save({"a": torch.zeros(4)}, tmp_path / "b.pt")
    with pytest.raises(ValueError, match="b.pt holds other tensors than the checkpoints before it"):
        average([tmp_path / "a.pt", tmp_path / "b.pt"])


class Evil:
    def __reduce__(self):
        return print, ("this must not be printed",)


@pytest.mark.parametrize("command", [["show", "{}"], ["convert", "{}", "x.safetensors"]])
def test_a_foreign_class_is_refused_by_name_and_not_run(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"a": torch.zeros(3)}, "x": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="would run code of builtins.print"):
        main([word.format("evil.pt") for word in command])
    assert "must not be printed" not in capsys.readouterr().out
    assert not (tmp_path / "x.safetensors").exists()


def test_a_plain_pickle_is_not_a_checkpoint(tmp_path):
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match="evil.pt"):
        describe(tmp_path / "evil.pt")


def test_another_ending_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="expected a name that ends in .pt or .safetensors"):
        save({}, {}, tmp_path / "x.bin")
    assert not list(tmp_path.iterdir())


def test_show_prints_the_description_and_the_parts(tmp_path, capsys):
    path = write(tmp_path, config=CONFIG)
    main(["show", str(path)])
    shown = capsys.readouterr().out
    for line in (
        "  loss:",
        "    loss_cls: MMContraLoss",
        "  updates: 10",
        "    train_loss: 1.5",
        "    a.b: 6",
    ):
        assert f"{line}\n" in shown
