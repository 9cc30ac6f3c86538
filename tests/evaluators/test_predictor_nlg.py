"""Captions reach the metric as words."""

import pytest
import torch
from torch import nn

from mmpt.config import Config
from mmpt.evaluators import NLGPredictor
from tests.mmpt_cli.toy_plugin import Words


class Writer(nn.Module):
    """Writes the ids that it sees in the features."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def generate(self, caps, vfeats, vmasks, num_beams=1):
        self.num_beams = num_beams
        return vfeats[:, :, 0].long()


BATCH = {
    "caps": torch.zeros(2, 3),
    "vfeats": torch.tensor([[[3.0], [4.0]], [[0.0], [0.0]]]),
    "vmasks": torch.ones(2, 2, dtype=torch.bool),
}


def test_captions_are_decoded_and_an_empty_one_is_none():
    model = Writer()
    predictor = NLGPredictor(Config(gen_param={"num_beams": 5}), Words())
    arrays = predictor([BATCH | {"ref": ["fry it", "cut it"], "video_id": [("a", 0, 4), ("a", 4, 9)]}], model)
    assert arrays == {
        "hyps": ["word3 word4", "none"],
        "refs": ["fry it", "cut it"],
        "ids": ["a_0_4", "a_4_9"],
    }
    assert model.num_beams == 5


def test_items_without_reference_name_the_split():
    with pytest.raises(ValueError, match="dataset.split: test"):
        NLGPredictor(Config(), Words())([BATCH | {"video_id": ["a", "b"]}], Writer())
