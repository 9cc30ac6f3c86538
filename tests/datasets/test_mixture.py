"""Several training sets in one run."""

import numpy as np
import pytest

from mmpt.datasets.mixture import SET, MixedDataset, MixturePlan

PLAN = MixturePlan((60, 37, 20), (4, 2, 3), (3, 1, 2), seed=7)
STARTS = np.array([0, 60, 97, 117])


def set_of(items):
    found = {int(np.searchsorted(STARTS, item, side="right")) - 1 for item in items}
    assert len(found) == 1
    return found.pop()


@pytest.mark.parametrize(("ranks", "freq"), [(1, 1), (2, 1), (2, 3), (3, 2)])
def test_an_update_reads_one_set_on_all_processes_and_no_item_twice(ranks, freq):
    for epoch in (1, 2):
        shares = [PLAN.share(epoch, rank, ranks, freq) for rank in range(ranks)]
        updates = PLAN.updates(ranks, freq)
        assert [len(share) for share in shares] == [updates * freq] * ranks
        for u in range(updates):
            batches = [batch for share in shares for batch in share[u * freq : (u + 1) * freq]]
            items = np.concatenate(batches)
            s = set_of(items)
            assert s == PLAN.sets(epoch, updates)[u]
            assert len(set(items.tolist())) == len(items) == ranks * freq * PLAN.batch_sizes[s]


def test_a_set_is_read_in_permutations_that_go_on_over_epochs():
    read = [batch for epoch in range(1, 10) for batch in PLAN.share(epoch, 0, 1) if set_of(batch) == 1]
    passes = [np.concatenate(read[i : i + 18]) for i in range(0, len(read) // 18 * 18, 18)]  # 37 // 2
    assert len(passes) >= 2 and all(len(set(items.tolist())) == 36 for items in passes)
    assert passes[0].tolist() != passes[1].tolist()


def test_sets_are_drawn_by_their_weights():
    plan = MixturePlan((4000, 4000), (1, 1), (3, 1), seed=1)
    share = np.mean(plan.sets(1, plan.updates(1)) == 0)
    assert abs(share - 0.75) < 4 * np.sqrt(0.75 * 0.25 / 8000)


def test_a_set_smaller_than_an_update_is_refused():
    with pytest.raises(ValueError, match="set 3 of the mixture has 20 items, and an update reads 24"):
        PLAN.share(1, 0, 4, 2)


class Part(list):
    seed = epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def collate(self, items):
        return {"x": [item["x"] for item in items]}


def test_items_batches_seed_and_epoch_are_those_of_the_sets():
    first, second = Part({"x": i} for i in range(5)), Part({"x": 10 + i} for i in range(3))
    mixed = MixedDataset({"a": first, "b": second}, [2, 3], [1, 1])
    mixed.seed = 9
    mixed.set_epoch(4)
    assert (first.seed, second.seed, second.epoch, mixed.seed, len(mixed)) == (9, 9, 4, 9, 8)
    assert mixed[6] == {"x": 11, SET: "b"}
    assert [batch.tolist() for batch in mixed.batches()] == [[0, 1], [2, 3], [4], [5, 6, 7]]
    assert mixed.collate([mixed[5], mixed[7]]) == {"x": [10, 12], SET: "b"}
