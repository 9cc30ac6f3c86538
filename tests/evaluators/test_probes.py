"""Temporal probes: each takes one thing away and leaves the rest."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmpt.api.evaluation import add_probe
from mmpt.config import EvalConfig
from mmpt.evaluators import RetrievalMetric, probes
from mmpt.evaluators.predictor import DealtOut
from mmpt.evaluators.probes import Probed

FEATURES = torch.arange(1.0, 9.0).view(2, 4, 1)
BATCH = {
    "vfeats": FEATURES * torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])[..., None],
    "vmasks": torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]], dtype=torch.bool),
    "caps": torch.tensor([[101, 102, 11, 12, 13, 102, 0]]).expand(2, -1),
    "cmasks": torch.tensor([[1, 1, 1, 1, 1, 1, 0]], dtype=torch.bool).expand(2, -1),
}


def changed(name, seed=0):
    (batch,) = Probed(name, [BATCH], seed)
    return batch


def test_one_second_is_the_middle_one():
    batch = changed("one_second")
    assert batch["vfeats"][..., 0].tolist() == [[2, 0, 0, 0], [6, 0, 0, 0]]
    assert batch["vmasks"].tolist() == [[True, False, False, False]] * 2
    assert batch["caps"] is BATCH["caps"]


def test_reversed_seconds_leave_padding_last():
    assert changed("reversed")["vfeats"][..., 0].tolist() == [[3, 2, 1, 0], [8, 7, 6, 5]]


def test_shuffled_seconds_are_the_same_seconds_in_an_order_of_the_seed():
    one, again, other = (changed("shuffled", seed)["vfeats"][1, :, 0] for seed in (0, 0, 2))
    assert one.sort().values.tolist() == [5, 6, 7, 8]
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_the_draws_of_a_batch_are_the_same_on_any_number_of_processes(monkeypatch):
    alone = [batch["vfeats"] for batch in Probed("shuffled", [BATCH] * 6)]
    assert not torch.equal(torch.stack(alone[:3]), torch.stack(alone[3:]))
    monkeypatch.setattr(probes, "world_size", lambda: 2)
    monkeypatch.setattr(probes, "rank", lambda: 1)
    assert torch.equal(
        torch.stack(alone[1::2]), torch.stack([b["vfeats"] for b in Probed("shuffled", [BATCH] * 3)])
    )


def test_ranks_are_told_that_they_have_parts_of_the_test_set():
    parts = DealtOut(4, 2)
    loader = torch.utils.data.DataLoader(range(4), batch_sampler=parts)
    assert Probed("shuffled", loader).batch_sampler is parts


def test_a_bag_of_words_moves_word_pieces_alone():
    caps = changed("bag_of_words")["caps"]
    assert caps[:, [0, 1, 5, 6]].tolist() == [[101, 102, 102, 0]] * 2
    assert caps[:, 2:5].sort(1).values.tolist() == [[11, 12, 13]] * 2


def test_batches_without_clips_of_features_are_refused():
    with pytest.raises(ValueError, match="eval.probes=reversed needs batches with vfeats and vmasks"):
        list(Probed("reversed", [{"vfeats": FEATURES}]))


def test_a_probe_is_a_measure_beside_the_main_number():
    metric = RetrievalMetric(EvalConfig(bootstrap=20))
    result, found = metric.evaluate(scores=np.eye(3)), metric.evaluate(scores=1 - np.eye(3))
    add_probe(result, "reversed", found)
    assert (result.values["R1"], result.values["probe_reversed-R1"]) == (1.0, 0.0)
    assert result.intervals["probe_reversed-MR"] == found.intervals["MR"]
    assert result.per_query["ranks_probe_reversed"].tolist() == [3, 3, 3]
