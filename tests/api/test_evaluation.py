"""Evaluating as a call."""

import builtins

import pytest
import torch

import mmpt
from mmpt.config import ConfigError


def test_an_evaluation_opens_its_checkpoint_once(project, tmp_path, monkeypatch):
    checkpoint = tmp_path / "run" / "checkpoint_best.pt"
    opened = []
    original, load = builtins.open, torch.load

    def counting(path, *args, **kwargs):
        opened.append(str(path))
        return original(path, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", counting)
    loads = []
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: loads.append(args) or load(*args, **kwargs))
    report = mmpt.evaluate(project(), checkpoint, device="cpu")
    assert opened.count(str(checkpoint)) == len(loads) == 1
    assert report.result.values["R1"] == 1 and len(report.checkpoint["sha256"]) == 64


def test_a_dict_and_a_config_are_evaluated_like_the_file(project, tmp_path):
    checkpoint = tmp_path / "run" / "checkpoint_best.pt"
    from mmpt.config import recursive_config

    expected = mmpt.evaluate(project(), checkpoint, device="cpu").result.values
    assert mmpt.evaluate(recursive_config(project()), checkpoint, device="cpu").result.values == expected
    config = mmpt.load_config(project())
    assert mmpt.evaluate(config, checkpoint, device="cpu").result.values == expected


def test_untrained_weights_are_drawn_by_the_seed_of_the_run_and_leave_the_callers_draws_alone(
    project, monkeypatch
):
    from mmpt.api import evaluation as room

    monkeypatch.setattr(room, "build_model", lambda config: torch.nn.Linear(5, 5))
    torch.manual_seed(7)
    expected = torch.rand(3)
    found = []
    for caller, seed in ((7, 1), (8, 1), (7, 2)):
        torch.manual_seed(caller)
        evaluation = room.Evaluation(
            mmpt.load_config(project(), [f"fairseq.common.seed={seed}"]), device="cpu"
        )
        found.append(torch.cat([x.flatten() for x in evaluation.load(None)[0].parameters()]))
        assert caller != 7 or torch.equal(torch.rand(3), expected)
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_nothing_is_written_unless_a_folder_is_named(project, tmp_path):
    before = sorted((tmp_path / "run").rglob("*"))
    mmpt.evaluate(project(), device="cpu")
    assert sorted((tmp_path / "run").rglob("*")) == before


@pytest.mark.parametrize(
    "baseline, said",
    [("lasso", "expected some of ridge, got lasso"), ("ridge", "does not say what it was trained")],
)
def test_a_baseline_that_cannot_be_had_is_named_with_the_cure(project, baseline, said):
    with pytest.raises(ConfigError, match=said):
        mmpt.evaluate(project(), overrides=[f"eval.baselines=[{baseline}]"], device="cpu")
