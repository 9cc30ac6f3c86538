"""The data plan: one order of items, whoever shares it."""

import numpy as np
import pytest

from mmpt.datasets import DataPlan


def divisors(n):
    return [d for d in range(1, n + 1) if n % d == 0]


@pytest.mark.parametrize("seed", range(20))
def test_an_epoch_that_changes_hands_draws_every_item_as_the_plan_says(seed):
    """Random sizes; at random places the epoch goes on with another number of processes."""
    rng = np.random.default_rng(seed)
    whole = int(rng.integers(1, 25))
    plan = DataPlan(int(rng.integers(whole, 200)), whole, seed)
    epoch, drawn, done = int(rng.integers(1, 5)), [], 0
    while done < len(plan):
        ranks = int(rng.choice(divisors(whole)))
        size = int(rng.choice(divisors(whole // ranks)))
        freq = whole // ranks // size
        until = int(rng.integers(done + 1, len(plan) + 1))
        shares = [plan.share(epoch, rank, ranks, size) for rank in range(ranks)]
        for update in range(done, until):
            part = [batch for share in shares for batch in share[update * freq : (update + 1) * freq]]
            drawn.append(np.concatenate(part))
        done = until
    np.testing.assert_array_equal(np.stack(drawn), plan.batches(epoch))
    order = np.concatenate(drawn)
    assert sorted(order[: plan.items]) == list(range(plan.items))
    np.testing.assert_array_equal(order[plan.items :], order[: len(order) - plan.items])


def test_epochs_and_seeds_differ_and_an_unshuffled_epoch_keeps_the_order_of_the_list():
    orders = [DataPlan(40, 8, seed).batches(epoch).tobytes() for seed in (1, 2) for epoch in (1, 2)]
    assert len(set(orders)) == 4
    assert DataPlan(10, 4, 1).batches(1, shuffle=False).ravel().tolist() == [*range(10), 0, 1]


def test_more_items_in_an_update_than_there_are_is_refused():
    with pytest.raises(ValueError, match="global_batch=16 asks for more items than the 15"):
        DataPlan(15, 16, 1)
