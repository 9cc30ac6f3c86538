"""Batches of near neighbours: composed, kept, read back, refused."""

import json
import logging
from pathlib import Path

import pytest
import torch

from mmpt.config import load_config
from mmpt.neighbours.batches import RetrievalBatches
from mmpt.neighbours.index import VectorRetriever
from mmpt.tasks import build_task
from tests.conftest import ROOT
from tests.two_processes import WORLD, run_on_two_ranks

SIZE = 8


class Towers(torch.nn.Module):
    """Pooled vectors made of the features; small, so that encoding takes no time."""

    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.video = torch.nn.Linear(512, 6, bias=False)
        torch.nn.init.orthogonal_(self.video.weight, generator=torch.Generator().manual_seed(0))
        self.video.weight.data *= scale
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, caps, cmasks, vfeats, vmasks):
        pooled = self.dropout(self.video(vfeats.mean(1)))
        return {"pooled_video": pooled, "pooled_text": pooled}


def settings(world: Path, *overrides: str):
    return load_config(
        ROOT / "projects/toy/norton.yaml",
        (
            f"dataset.bert_name={world}/model",
            f"dataset.train_path={world}/how2/how2_s3d_train.lst",
            f"dataset.vfeat_dir={world}/how2/feat",
            f"dataset.tfeat_dir={world}/how2/feat/narration.",
            f"dataset.num_video_per_batch={SIZE}",
            "retri_epoch=1",
            "num_cands=12",
            *overrides,
        ),
    )


def batches(world: Path, folder: Path, *overrides: str, seed: int = 1) -> RetrievalBatches:
    return RetrievalBatches(settings(world, *overrides), folder, seed)


@pytest.fixture
def searches(monkeypatch):
    """The retriever of every time that groups were composed rather than read back."""
    seen = []
    compose = VectorRetriever.batches
    monkeypatch.setattr(
        VectorRetriever, "batches", lambda self, *args: seen.append(self) or compose(self, *args)
    )
    return seen


def test_groups_have_the_size_the_loss_needs_and_no_video_twice(toy_world, tmp_path):
    groups = batches(toy_world, tmp_path).compose(1, Towers())
    assert len(groups) == 48 // SIZE and all(len(set(group)) == SIZE for group in groups)


def test_a_group_lies_closer_together_than_a_run_of_the_list(toy_world, tmp_path, searches):
    groups = batches(toy_world, tmp_path).compose(1, Towers())
    vectors = dict(zip(searches[0].ids, searches[0].vectors, strict=True))

    def spread(groups):
        return sum(
            torch.cdist(v, v).mean()
            for v in (torch.stack([vectors[name] for name in group]) for group in groups)
        ) / len(groups)

    names = sorted(vectors)
    assert spread(groups) < 0.9 * spread(
        [names[start : start + SIZE] for start in range(0, len(names), SIZE)]
    )


def test_every_video_is_encoded_once(toy_world, tmp_path, searches):
    batches(toy_world, tmp_path).compose(1, Towers())
    assert sorted(searches[0].ids) == sorted((toy_world / "how2/how2_s3d_train.lst").read_text().split())


def test_composing_leaves_mode_and_random_stream_of_the_model_alone(toy_world, tmp_path):
    model = Towers().train()
    state = torch.get_rng_state()
    batches(toy_world, tmp_path).compose(1, model)
    assert model.training and torch.equal(torch.get_rng_state(), state)


def test_the_same_model_and_settings_read_the_groups_back(toy_world, tmp_path, searches):
    first = batches(toy_world, tmp_path).compose(1, Towers())
    assert batches(toy_world, tmp_path).compose(1, Towers()) == first
    assert len(searches) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"model": Towers(2.0)},
        {"seed": 2},
        {"overrides": ("num_cands=20",)},
        {"overrides": ("dataset.sampled_max_len=16",)},
        {"overrides": ("retri_metric=innerproduct",)},
    ],
    ids=["model", "seed", "candidates", "sampling", "metric"],
)
def test_groups_made_under_other_circumstances_are_not_reused(toy_world, tmp_path, searches, change):
    batches(toy_world, tmp_path).compose(1, Towers())
    batches(toy_world, tmp_path, *change.get("overrides", ()), seed=change.get("seed", 1)).compose(
        1, change.get("model", Towers())
    )
    assert len(searches) == 2


def test_a_list_changed_in_place_is_not_taken_for_the_old_one(toy_world, tmp_path, searches):
    names = (toy_world / "how2/how2_s3d_train.lst").read_text().split()
    path = tmp_path / "train.lst"
    for count in (48, 40):
        path.write_text("\n".join(names[:count]))
        batches(toy_world, tmp_path, f"dataset.train_path={path}").compose(1, Towers())
    assert len(searches) == 2


def test_each_epoch_has_groups_of_its_own(toy_world, tmp_path):
    retrieval = batches(toy_world, tmp_path)
    assert retrieval.compose(1, Towers()) != retrieval.compose(2, Towers())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch1.json", "epoch2.json"]


def test_a_run_resumed_within_an_epoch_reads_its_groups_though_the_model_moved_on(
    toy_world, tmp_path, searches
):
    before = batches(toy_world, tmp_path)
    groups = before.compose(1, Towers())
    assert batches(toy_world, tmp_path).compose(1, Towers(2.0), expected=before.fingerprint) == groups
    assert len(searches) == 1


@pytest.mark.parametrize("other", [None, {"fingerprint": "of another run", "groups": [["a"]]}])
def test_groups_of_an_interrupted_epoch_that_are_gone_or_foreign_stop_the_run(toy_world, tmp_path, other):
    if other:
        (tmp_path / "epoch1.json").write_text(json.dumps(other))
    with pytest.raises(
        FileNotFoundError,
        match="middle of epoch 1, whose batches .*epoch1.json are missing or of another run",
    ):
        batches(toy_world, tmp_path).compose(1, Towers(), expected="0123")


def test_a_file_of_groups_cut_short_is_composed_again(toy_world, tmp_path, searches):
    groups = batches(toy_world, tmp_path).compose(1, Towers())
    path = tmp_path / "epoch1.json"
    path.write_text(path.read_text()[:100])
    assert batches(toy_world, tmp_path).compose(1, Towers()) == groups and len(searches) == 2


def test_the_log_tells_how_many_videos_the_epoch_reaches_and_how_fast_they_were_encoded(
    toy_world, tmp_path, caplog
):
    with caplog.at_level(logging.INFO, logger="mmpt"):
        groups = batches(toy_world, tmp_path).compose(3, Towers())
    reached = len({video for group in groups for video in group})
    assert f"epoch 3: 6 batches of near neighbours reach {reached} of 48 videos" in caplog.text
    assert "1 processes encoded" in caplog.text and "videos/s" in caplog.text


def test_the_task_retrieves_from_its_epoch_on_and_partitions_at_random_before_and_after(
    toy_world, tmp_path, searches
):
    overrides = "retri_epoch=2", "fairseq.optimization.max_epoch=2", f"fairseq.checkpoint.save_dir={tmp_path}"
    task = build_task(settings(toy_world, *overrides))
    data = task.build_dataset("train")
    reached = []
    for epoch in (1, 2, 3):  # fairseq asks for one epoch past the last
        task.begin_epoch(data, epoch, Towers())
        reached.append(len({position for group in data.meta_processor.groups for position in group.tolist()}))
    assert len(searches) == 1 and reached[0] == reached[2] == 48
    assert data[0]["caps"].shape[:2] == (SIZE, 8)


def test_a_resumed_task_hands_its_groups_on(toy_world, tmp_path, searches):
    config = settings(toy_world, f"fairseq.checkpoint.save_dir={tmp_path}")
    before, after = build_task(config), build_task(config)
    first, second = before.build_dataset("train"), after.build_dataset("train")
    before.begin_epoch(first, 1, Towers())
    after.resume(before.resume_state(), 1)
    after.begin_epoch(second, 1, Towers(3.0))
    assert len(searches) == 1
    assert [list(group) for group in second.meta_processor.groups] == [
        list(group) for group in first.meta_processor.groups
    ]
    after.begin_epoch(second, 2, Towers(3.0))
    assert len(searches) == 2  # the next epoch is composed anew


def compose_on_rank(rank: int, folder: Path) -> None:
    world = Path((folder / "world").read_text())
    for pool in ("VideoVectorPool", "DistributedVideoVectorPool"):
        retrieval = batches(world, folder / pool, f"vectorpool_cls={pool}")
        groups = retrieval.compose(1, Towers())
        (folder / f"{pool}{rank}.json").write_text(json.dumps([groups, retrieval.fingerprint]))
        again = batches(
            world,
            folder / pool if rank == 0 else folder / "a disk that the other node does not see",
            f"vectorpool_cls={pool}",
        )
        assert again.compose(1, Towers(2.0), expected=retrieval.fingerprint) == groups


def test_two_processes_agree_on_the_groups_of_either_pool(toy_world, tmp_path):
    (tmp_path / "world").write_text(str(toy_world))
    run_on_two_ranks(compose_on_rank, tmp_path)
    names = (toy_world / "how2/how2_s3d_train.lst").read_text().split()
    found = {}
    for pool in ("VideoVectorPool", "DistributedVideoVectorPool"):
        ranks = [json.loads((tmp_path / f"{pool}{rank}.json").read_text()) for rank in range(WORLD)]
        assert ranks[0] == ranks[1]
        found[pool] = ranks[0][0]
        assert len(found[pool]) == 6 and all(len(set(group)) == SIZE for group in found[pool])
    # a local pool never mixes the shares of two processes
    assert all(
        len({names.index(video) % WORLD for video in group}) == 1 for group in found["VideoVectorPool"]
    )
    assert any(
        len({names.index(video) % WORLD for video in group}) == 2
        for group in found["DistributedVideoVectorPool"]
    )
    # the common pool finds what one process would
    single = batches(toy_world, tmp_path / "single").compose(1, Towers())
    assert (
        sum(
            len(set(group) & set(other))
            for group, other in zip(found["DistributedVideoVectorPool"], single, strict=True)
        )
        > 0
    )
