"""The pairs that a training set draws."""

from __future__ import annotations

import torch

from mmpt.config import load_config
from mmpt.datasets import build_dataset, training_pairs
from mmpt.demo.toy_runs import PROJECTS, move_folders


def test_groups_of_videos_come_as_rows_of_one_pair_each_until_there_are_enough(toy_world):
    path = PROJECTS / "norton.yaml"
    moves = move_folders(path, {"data/toy": str(toy_world)})
    dataset = build_dataset(load_config(path, [*moves, "dataset.num_video_per_batch=4"]), "train")
    batches = list(training_pairs(dataset, most=60, epochs=3))
    assert [len(batch["caps"]) for batch in batches] == [32, 32] and dataset.epoch == 1
    first, again = batches[0], next(iter(training_pairs(dataset)))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert first["vfeats"].dim() == 3 and first["caps"].dim() == 2 and first["vmasks"].any(1).all()
