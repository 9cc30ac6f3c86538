"""Keys that follow from others."""

from __future__ import annotations

import pytest

from mmpt.config import load_config
from mmpt.config.follow import HYPOTHESES, completed, views_of
from mmpt.ops.gdt import VIEWS, GDTHypothesis
from tests.conftest import ROOT


@pytest.mark.parametrize("number", range(1, 10))
def test_the_views_of_a_hypothesis_are_those_that_its_loss_compares(number):
    hypothesis = GDTHypothesis.parse(number)
    assert HYPOTHESES[number - 1] == hypothesis.name
    for spelling in (number, hypothesis.name, hypothesis.name.replace("v_", "d_")):
        assert views_of(spelling) == [VIEWS[view] for view in hypothesis.views]


def test_one_key_chooses_a_hypothesis(monkeypatch):
    monkeypatch.chdir(ROOT)
    config = load_config("projects/retri/gdt/how2.yaml", ["loss.hypothesis=v_shift"])
    assert (config.dataset.views, config.dataset.subsampling) == (["orig", "shift"], 2)


def test_what_a_file_says_itself_stays():
    tree = {"loss": {"loss_cls": "GDTLoss", "hypothesis": 4}, "dataset": {"views": ["orig"]}}
    assert completed(tree) == tree


def test_an_unknown_hypothesis_is_left_to_the_loss():
    tree = {"loss": {"loss_cls": "GDTLoss", "hypothesis": "sideways"}, "dataset": {}}
    assert completed(tree) == tree
