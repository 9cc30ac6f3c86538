"""Recognition by class names, linear probe and nearest neighbours."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmpt.config import EvalConfig
from mmpt.evaluators import (
    ActionRecognitionMetric,
    RecognitionNNPredictor,
    RecognitionProbePredictor,
    RecognitionZSPredictor,
)

PER_CLASS, CLASSES, WIDTH = 6, 4, 8


class Given(torch.nn.Module):
    """Gives the features as vectors."""

    def forward_video(self, vfeats, vmasks, caps, cmasks):
        return SimpleNamespace(pooled=vfeats[:, 0])

    def forward_text(self, caps, cmasks):
        return SimpleNamespace(pooled=torch.eye(WIDTH)[caps[:, 0]])


def loader(noise=0.3):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(CLASSES).repeat(PER_CLASS)
    vectors = torch.eye(WIDTH)[labels] + noise * torch.randn(len(labels), WIDTH, generator=generator)
    splits = torch.tensor([[1, 2], [2, 1], [1, 0]]).repeat_interleave(CLASSES, 0).repeat(2, 1)
    batch = {
        "vfeats": vectors[:, None],
        "vmasks": None,
        "caps": None,
        "cmasks": None,
        "label": labels,
        "splits": splits,
    }
    names = [f"video{i}" for i in range(len(labels))]
    meta = SimpleNamespace(class_names=list("abcd"))
    text = SimpleNamespace(tokenize=lambda name: ["abcd".index(name)])
    aligner = SimpleNamespace(pack=lambda ids: (torch.tensor(ids), torch.ones(len(ids), 1, dtype=torch.bool)))
    dataset = SimpleNamespace(meta_processor=meta, text_processor=text, aligner=aligner)
    return type("Loader", (list,), {"dataset": dataset})([batch | {"video_id": names}])


def result(predictor, noise=0.3):
    arrays = predictor(SimpleNamespace())(loader(noise), Given(), "cpu")
    return ActionRecognitionMetric(EvalConfig(bootstrap=0)).evaluate(**arrays), arrays


@pytest.mark.parametrize(
    "predictor", [RecognitionZSPredictor, RecognitionProbePredictor, RecognitionNNPredictor]
)
def test_separated_classes_are_recognised_in_every_split(predictor):
    values = result(predictor, noise=0.05)[0].values
    assert values["split1-acc"] == values["split2-acc"] == values["mean-R1"] == 1


def test_nearest_neighbours_are_found_among_the_training_videos_of_the_split_alone():
    _, arrays = result(RecognitionNNPredictor, noise=0.8)
    vectors = torch.nn.functional.normalize(loader(0.8)[0]["vfeats"][:, 0], dim=-1).numpy()
    for split in range(2):
        train = np.flatnonzero(arrays["splits"][:, split] == 1)
        for video in range(len(vectors)):
            closeness = vectors[train] @ vectors[video]
            order = train[np.argsort(-closeness)]
            assert arrays["scores"][split, video].argmax() == arrays["labels"][order[0]]
            first_right = np.flatnonzero(arrays["labels"][order] == arrays["labels"][video])[0]
            assert arrays["neighbour_ranks"][split, video] == first_right + 1


def test_recall_of_nearest_neighbours_counts_videos_up_to_fifty():
    values = result(RecognitionNNPredictor, noise=0.8)[0].values
    assert values["split1-R1"] == values["split1-acc"] and values["split1-R50"] == 1


def test_a_probe_is_the_same_in_every_run():
    first, second = (result(RecognitionProbePredictor)[1]["scores"] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_split_without_training_videos_is_an_error():
    batches = loader()
    batches[0]["splits"] = torch.full_like(batches[0]["splits"], 2)
    with pytest.raises(ValueError, match="split 1 has no training video"):
        RecognitionProbePredictor(SimpleNamespace())(batches, Given(), "cpu")
