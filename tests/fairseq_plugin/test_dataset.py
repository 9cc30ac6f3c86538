"""The data set as fairseq sees it."""

import numpy as np
import pytest

from mmpt.fairseq_plugin.dataset import FairseqMMDataset


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
