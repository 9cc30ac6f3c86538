"""The metrics on the real galleries, with vectors whose right answer is known."""

import csv

import numpy as np
import pytest
import torch

from mmpt.config import EvalConfig
from mmpt.evaluators import FullVideoRetrievalMetric, RetrievalMetric
from mmpt.evaluators.ranking import chance
from tests.conftest import real_path


def read(*parts):
    with open(real_path(*parts), encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def vectors(count):
    """Random unit vectors, and a generator to go on with."""
    generator = torch.Generator().manual_seed(0)
    return torch.nn.functional.normalize(torch.randn(count, 48, generator=generator), dim=1), generator


def test_perfect_vectors_are_perfect_on_the_msrvtt_gallery_whose_five_duplicate_captions_are_counted():
    rows = read("msrvtt", "MSRVTT_JSFUSION_test.csv")
    video, _ = vectors(len(rows))
    names = {"item_ids": [row["video_id"] for row in rows], "texts": [row["sentence"] for row in rows]}
    result = RetrievalMetric(EvalConfig(bootstrap=0)).evaluate(pooled_text=video, pooled_video=video, **names)
    assert result.best == 1 and result.warnings == []
    assert result.facts["gallery"] == 1000 and result.facts["duplicate captions"] == 5


def test_shuffled_vectors_are_at_chance_on_the_youcook2_gallery():
    count = len(read("youcook2", "milnce_validation_youcook.csv"))
    video, generator = vectors(count)
    text = video[torch.randperm(count, generator=generator)]
    result = RetrievalMetric(EvalConfig(bootstrap=0)).evaluate(pooled_text=text, pooled_video=video)
    assert result.facts["gallery"] == 3350 and result.values["R10"] < 3 * chance(3350)["R10"]
    assert result.values["MR"] == pytest.approx(chance(3350)["MR"], rel=0.1)


def test_perfect_and_shuffled_vectors_on_youcook2_videos():
    ids = [row["video_id"] for row in read("youcook2", "milnce_validation_youcook.csv")]
    assert len(set(ids)) == 436
    some = set(sorted(set(ids))[:60])
    ids = [name for name in ids if name in some]
    video, generator = vectors(len(ids))
    metric = FullVideoRetrievalMetric(EvalConfig(bootstrap=0))
    perfect = metric(pooled_text=video, pooled_video=video, video_ids=ids)
    shuffled = metric(
        pooled_text=video[torch.randperm(len(ids), generator=generator)], pooled_video=video, video_ids=ids
    )
    exact = [name for name in perfect if name.endswith("-R1") and "historic" not in name]
    assert perfect["R1"] == 1 and np.mean([perfect[name] for name in exact]) > 0.9
    assert np.mean([shuffled[name] for name in exact]) < 0.15
