"""Predictors of single tasks, on a model whose outputs are its inputs: what reaches the metric is known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from mmpt.config import Config, DatasetConfig
from mmpt.evaluators import (
    COINPredictor,
    COINZSPredictor,
    CrossTaskPredictor,
    DiDeMoPredictor,
    HTMAlignPredictor,
    QAPredictor,
)
from mmpt.evaluators.windows import window_ranges

WINDOWS = Config(dataset=DatasetConfig(sliding_window=4, sliding_window_size=8, max_video_len=8))
D = 6


class Mirror(nn.Module):
    """Video tokens are the features; a text is the unit vector of its first id."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward_text(self, caps, cmasks):
        return SimpleNamespace(pooled=torch.eye(D)[caps[:, 0]])

    def forward_video(self, vfeats, vmasks, caps, cmasks):
        assert len(vfeats) == len(caps)
        edge = torch.zeros(len(vfeats), 1, D)
        return SimpleNamespace(outputs=torch.cat([edge, vfeats, edge], 1), pooled=vfeats.mean(1))

    def forward(self, caps, cmasks, vfeats, vmasks, **batch):
        if vfeats.ndim == 4:
            return {"logits": vfeats[0][vmasks[0]]}
        video = self.forward_video(vfeats, vmasks, caps, cmasks)
        return {
            "pooled_text": self.forward_text(caps, cmasks).pooled,
            "pooled_video": video.pooled,
            "video_outputs": video.outputs,
        }


def windowed(seconds):
    """A batch of one video of unit-vector seconds, cut as the aligners cut it."""
    video = torch.eye(D)[torch.tensor(seconds)]
    ranges = window_ranges(len(seconds), 4, 8)
    vfeats, vmasks = torch.zeros(1, len(ranges), 8, D), torch.zeros(1, len(ranges), 8, dtype=torch.bool)
    for row, (start, end) in enumerate(ranges):
        vfeats[0, row, : end - start], vmasks[0, row, : end - start] = video[start:end], True
    caps = torch.zeros(1, len(ranges), 4, dtype=torch.long)
    batch = {"vfeats": vfeats, "vmasks": vmasks, "caps": caps, "cmasks": caps > 0}
    return batch | {"video_len": torch.tensor([len(seconds)]), "video_id": ["v"]}


class Loader(list):
    """Batches with the data set that they come from."""

    dataset = None


def test_question_answering_takes_the_closest_answer():
    caps = torch.tensor([[[0, 0], [1, 0], [2, 0]], [[3, 0], [4, 0], [5, 0]]])
    video = torch.eye(D)[[2, 3]][:, None]
    batch = {"caps": caps, "cmasks": caps > 0, "vfeats": video, "vmasks": torch.ones(2, 1, dtype=torch.bool)}
    arrays = QAPredictor(Config())(
        [batch | {"answers": torch.tensor([[2], [1]]), "video_id": ["a", "b"]}], Mirror()
    )
    assert arrays["choices"].tolist() == [2, 0] and arrays["answers"].tolist() == [2, 1]


def test_coin_labels_are_those_of_the_merged_windows():
    seconds = [0, 0, 3, 3, 3, 0, 5, 5, 5, 0, 1, 1, 2]
    batches = [windowed(part) | {"video_targets": torch.tensor([part])} for part in (seconds, seconds[:3])]
    arrays = COINPredictor(WINDOWS)(batches, Mirror())
    assert arrays["Y_pred"].tolist() == seconds + seconds[:3] == arrays["Y_true"].tolist()
    assert arrays["lengths"] == [13, 3]


def test_coin_zero_shot_names_the_ids_of_the_step_names():
    dataset = SimpleNamespace(
        meta_processor=SimpleNamespace(step_names={7: "chop", 9: "fry"}),
        text_processor=SimpleNamespace(tokenize=lambda name: [{"chop": 1, "fry": 2}[name]]),
        aligner=SimpleNamespace(
            label_captions=lambda ids: (torch.tensor(ids), torch.ones(len(ids), 1, dtype=torch.bool))
        ),
    )
    loader = Loader([windowed([0, 1, 1, 2, 4]) | {"video_targets": torch.tensor([[0, 7, 7, 9, 0]])}])
    loader.dataset = dataset
    arrays = COINZSPredictor(WINDOWS)(loader, Mirror())
    assert arrays["Y_pred"].tolist() == [0, 7, 7, 9, 0]


def test_crosstask_steps_are_placed_in_order():
    seconds = [4, 0, 4, 1, 4, 2, 3, 4, 4, 5, 4, 4]
    batch = windowed(seconds)
    targets = batch["vfeats"][0][batch["vmasks"][0]]
    arrays = CrossTaskPredictor(WINDOWS)(
        [batch | {"targets": targets[None], "task": ["t"], "vfeats": 9 * batch["vfeats"]}], Mirror()
    )
    assert arrays["tasks"] == ["t"] and arrays["Y_true"][0].argmax(1).tolist() == seconds
    assert arrays["Y_pred"][0].sum(0).tolist() == [1] * D and np.diff(arrays["Y_pred"][0].argmax(0)).min() > 0


def test_didemo_moments_meet_the_annotations_of_their_description_even_where_it_is_given_twice():
    class Meta(list):
        times = [[[2, 2], [2, 3]], [[0, 0]]]

    video = torch.eye(D)[torch.arange(30) // 5][None]
    batch = {
        "caps": torch.tensor([[2]]),
        "cmasks": torch.ones(1, 1),
        "vfeats": video,
        "vmasks": torch.ones(1, 30, dtype=torch.bool),
    }
    batch |= {"video_id": ["a"]}
    loader = Loader([batch | {"idx": torch.tensor([0])}, batch | {"idx": torch.tensor([1])}])
    loader.dataset = SimpleNamespace(meta_processor=Meta([("a", "x"), ("a", "x")]))
    arrays = DiDeMoPredictor(Config())(loader, Mirror())
    assert arrays["rankings"][0][0].tolist() == [2, 2]
    assert arrays["times"].tolist() == [[[2, 2], [2, 3]], [[0, 0], [-1, -1]]]


def test_narration_is_compared_with_every_second_of_its_windows():
    n_seconds = 40
    video = torch.eye(D)[torch.arange(n_seconds) % D]
    annotations = torch.tensor([[0, 0, 40.0], [1, 2.0, 3.0], [0, 3.0, 4.0]])
    caps = torch.tensor([[[1, 0], [2, 0], [3, 0]]])
    batch = {
        "vfeats": video[None],
        "caps": caps,
        "cmasks": caps > 0,
        "annotations": annotations[None],
        "video_id": ["v"],
    }
    arrays = HTMAlignPredictor(WINDOWS)([batch], Mirror())
    assert arrays["similarity"][0].shape == (3, n_seconds)
    assert arrays["similarity"][0][1].argmax() == 2 and arrays["similarity"][0][1, 2] == pytest.approx(1)
