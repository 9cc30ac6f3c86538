"""Clips whose two ingredients have changed places."""

from __future__ import annotations

import json

import numpy as np

from mmpt.demo.report import ROLES, add_roles, role_twins
from mmpt.evaluators import Result
from mmpt.utils import load_plain_pickle


def test_a_twin_has_the_ingredients_in_each_others_roles_and_is_its_twins_twin(toy_world):
    path = toy_world / "youcook" / "youcook_val_distinct.pkl"
    own, twin = role_twins(str(path), toy_world)
    videos, records = json.loads((toy_world / "truth.json").read_text()), load_plain_pickle(path)

    def step(index):
        video, _, clip = records[index]["id"].rpartition("_")
        return videos[video]["steps"][int(clip)]

    assert len(own) and dict(zip(own, twin, strict=True)) == dict(zip(twin, own, strict=True))
    for first, second in zip(map(step, own), map(step, twin), strict=True):
        assert first["verb"] == second["verb"] and first["object"] == second["third"]


def test_a_caption_counts_where_it_is_closer_to_its_own_clip_and_half_where_it_is_not_told_apart():
    video = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    result = Result({"R1": 0.0}, "R1")
    arrays = {"pooled_text": np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), "pooled_video": video}
    add_roles(result, arrays, np.array([0, 1, 2]), np.array([1, 0, 1]))
    assert result.per_query[ROLES].tolist() == [1.0, 0.0, 0.5]
