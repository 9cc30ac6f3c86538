"""The data set as fairseq sees it."""

from types import SimpleNamespace

import numpy as np
import pytest

from mmpt.fairseq_plugin.dataset import FairseqMMDataset
from mmpt.fairseq_plugin.task import FairseqMMTask
from mmpt.processors.base import Aligner


class Items:
    def __len__(self):
        return 7

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __getitem__(self, index):
        assert type(index) is int
        return {"index": index}

    def collate(self, items):
        return {"index": [item["index"] for item in items]}


@pytest.mark.parametrize("size", [1, 3, 7, 9])
def test_every_item_is_in_exactly_one_batch(size):
    dataset = FairseqMMDataset(Items())
    batches = dataset.batch_by_size(dataset.ordered_indices(), max_sentences=size)
    assert np.concatenate(batches).tolist() == list(range(7))
    assert all(len(batch) == size for batch in batches[:-1])


@pytest.mark.parametrize("size", [1, 3, 7])
def test_training_batches_have_one_size_and_hold_every_item(size):
    dataset = FairseqMMDataset(Items(), equal_batches=True)
    batches = dataset.batch_by_size(dataset.ordered_indices(), max_sentences=size)
    assert {len(batch) for batch in batches} == {size}
    assert set(np.concatenate(batches).tolist()) == set(range(7))


def test_a_missing_batch_size_is_an_error_that_names_the_key():
    dataset = FairseqMMDataset(Items())
    with pytest.raises(ValueError, match="fairseq.dataset.batch_size is missing"):
        dataset.batch_by_size(dataset.ordered_indices(), max_tokens=100)


def test_numpy_indices_reach_the_items_as_integers():
    assert FairseqMMDataset(Items())[np.int64(3)] == {"index": 3}


def test_a_rank_without_items_gives_an_empty_batch():
    assert FairseqMMDataset(Items()).collater([]) == {}


@pytest.mark.parametrize(("on_cpu", "split"), [(True, "train"), (False, "train"), (False, "valid")])
def test_only_what_trains_on_a_gpu_keeps_features_as_they_are_stored(monkeypatch, on_cpu, split):
    monkeypatch.setattr("mmpt.fairseq_plugin.patches.trains_on_cpu", lambda args: on_cpu)
    data = Items()
    data.aligner = Aligner.__new__(Aligner)
    task = object.__new__(FairseqMMTask)
    task.__dict__ |= {
        "datasets": {}, "share": None, "accepted": [], "args": SimpleNamespace(seed=1),
        "config": SimpleNamespace(dataset=SimpleNamespace(train_path="t", val_path="v"), source="file"),
        "mmtask": SimpleNamespace(build_dataset=lambda split: data),
        "recorder": SimpleNamespace(record=None), "folder": SimpleNamespace(check_items=lambda *_: None),
    }  # fmt: skip
    task.load_dataset(split)
    assert data.aligner.as_stored is (split == "train" and not on_cpu)
