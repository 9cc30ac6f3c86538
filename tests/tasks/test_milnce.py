"""MILNCETask: clips with several candidate captions."""

import pytest
import torch

from mmpt.config import load_config
from mmpt.demo.toy_runs import PROJECTS, move_folders
from mmpt.tasks import MILNCETask, build_task

PATH = PROJECTS / "losses/milnce.yaml"


@pytest.fixture(scope="module")
def trained(toy_world):
    """The task, its model, and a batch of 2 videos."""
    task = build_task(load_config(PATH, move_folders(PATH, {"data/toy": str(toy_world)})))
    dataset = task.build_dataset("train")
    torch.manual_seed(0)
    return task, task.build_model().eval(), dataset.collate([dataset[0], dataset[1]])


def test_candidates_of_a_clip_become_neighbouring_rows(trained):
    task, _, sample = trained
    batch = task.flatten(sample)
    assert (
        sample["caps"].shape == (2, 8, 4, 32)
        and batch["caps"].shape == (64, 32)
        and batch["vfeats"].shape == (16, 16, 512)
    )
    assert torch.equal(batch["caps"][4:8], sample["caps"][0, 1]) and torch.equal(
        batch["vfeats"][8], sample["vfeats"][1, 0]
    )


def test_the_step_compares_each_clip_with_all_candidates(trained):
    task, model, sample = trained
    step = task(model, sample)
    step.loss.backward()
    assert step.n_clips == 16 and step.n_uncaptioned == 0 and torch.isfinite(step.loss)
    assert model.video_encoder.videomlp.linear1.weight.grad.abs().max() > 0


def test_a_clip_does_not_see_its_candidates(trained):
    task, model, sample = trained
    batch = task.flatten(sample)
    with torch.no_grad():
        output = model(**batch)
        alone = model(**{**batch, "caps": batch["caps"][::4], "cmasks": batch["cmasks"][::4]})
    assert output["pooled_text"].shape == (64, 128)
    torch.testing.assert_close(output["pooled_video"], alone["pooled_video"])


def test_a_clip_counts_as_wordless_when_all_its_candidates_are(trained):
    task, _, sample = trained
    batch = task.flatten(sample)
    cmasks = batch["cmasks"].clone()
    cmasks[:4, 3:] = False
    cmasks[4, 3:] = False
    assert task.count({**batch, "cmasks": cmasks})[1] == 1


def test_parts_of_a_batch_are_refused():
    with pytest.raises(ValueError, match="micro_batch"):
        MILNCETask(load_config(PATH, ["model.micro_batch=8"]))
