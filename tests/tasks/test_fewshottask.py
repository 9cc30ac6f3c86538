"""A batch of a few-shot task is one episode."""

import pytest
import torch

from mmpt.config import load_config
from mmpt.tasks import FewShotTask, build_task
from tests.conftest import ROOT


def episodes(n):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(5).repeat(n, 1)
    sides = {name: torch.randn(n, 5, 8, 512, generator=generator) for name in ("support", "query")}
    return {**sides, "support_labels": labels, "query_labels": labels, "video_id": [["a"] * 5] * n}


def test_an_episode_loses_its_batch_dimension_and_counts_its_queries():
    task = build_task(load_config(ROOT / "projects/toy/fewshot.yaml"))
    assert isinstance(task, FewShotTask)
    step = task(task.build_model(), episodes(1))
    assert (
        step.n_clips == 5
        and step.n_uncaptioned == 0
        and step.loss.requires_grad
        and set(step.terms) == {"few_shot", "accuracy"}
    )


def test_two_episodes_in_a_batch_are_refused_with_the_key_to_change():
    task = build_task(load_config(ROOT / "projects/toy/fewshot.yaml"))
    with pytest.raises(ValueError, match="2 episodes; set fairseq.dataset.batch_size: 1 and use update_freq"):
        task(task.build_model(), episodes(2))
